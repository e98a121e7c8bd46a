"""A whole federation on this machine: SuperLink and SuperNodes as processes, stopped whatever happens.

Everything listens on 127.0.0.1 only. Three things end the processes: leaving the ``with`` block (also by
an exception, Ctrl-C or SIGTERM), the end of this interpreter, and, where it is killed, the processes'
own watch over their parent.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Type

from skinfl.errors import SkinflError
from skinfl.flower.environment import flower_environment
from skinfl.flower.provisioning.folders import CONNECTION, read_coordinator

#: carried by every process of a federation, so that none is overlooked when it is stopped
MARK = "SKINFL_FEDERATION_MARK"
_PROCESS = "SKINFL_PROCESS"
_LOOPBACK = "127.0.0.1"
_READY = "SuperNode ID:"
_STILL_CONNECTED = "Failed to activate SuperNode"
_FLWR = (
    sys.executable,
    "-c",
    "import json, sys; from flwr.cli.app import app\n"
    "for arguments in json.loads(sys.argv[1]): app(arguments, standalone_mode=False)",
)


class ProcessError(SkinflError):
    """A process of Flower that did not start, or ended early; the text names its log."""


def free_ports(count: int) -> List[int]:
    """Return ports that nothing listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind((_LOOPBACK, 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


class LocalDeployment:
    """The processes of a provisioned federation (the folder that ``skinfl provision`` made).

    ``patience`` is how many seconds each process has to become ready. Logs go to ``logs/NAME.log``.
    ``environment`` is added to the processes' own. With ``simulation`` the SuperLink runs all hospitals
    itself, in Flower's simulation engine, and no SuperNode is started.

    Use it as a context manager::

        with LocalDeployment(folder, logs) as deployment:
            deployment.start()
            deployment.wait(deployment.submit(app, {"rounds": 3}), timeout=600)
    """

    def __init__(
        self,
        federation: Path,
        logs: Path,
        *,
        patience: float = 60.0,
        simulation: bool = False,
        environment: Optional[Mapping[str, str]] = None,
    ):
        self.federation = Path(federation).resolve()
        self.coordinator = read_coordinator(self.federation / "coordinator")
        self.logs = Path(logs).resolve()
        self._patience = patience
        self._simulation = simulation
        self._extra = dict(environment or {})
        self._mark = secrets.token_hex(16)
        self._processes: Dict[str, subprocess.Popen] = {}
        self._ports = dict(zip(self.coordinator.hospitals, free_ports(len(self.coordinator.hospitals))))
        self._handlers: Dict[int, Any] = {}

    def __enter__(self) -> LocalDeployment:
        self.logs.mkdir(parents=True, exist_ok=True)
        atexit.register(self.stop)
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, _leave)
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()
        atexit.unregister(self.stop)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def start(self) -> None:
        """Start the SuperLink, admit the hospitals, and start all SuperNodes."""
        self.start_superlink()
        if self._simulation:
            return
        self.register()
        self.start_supernodes(self.coordinator.hospitals)

    def start_superlink(self) -> None:
        """Start the SuperLink and wait until it answers over TLS."""
        options = ["--simulation"] if self._simulation else []
        self._start("superlink", "--folder", str(self.coordinator.path), "--listen", _LOOPBACK, *options)
        self._await("superlink", self._superlink_answers)

    def register(self, names: Optional[Sequence[str]] = None) -> None:
        """Admit hospitals by their public keys, all of them unless some are named."""
        commands = []
        for name in self.coordinator.hospitals if names is None else names:
            key = str(self.coordinator.public_key(name))
            commands.append(["supernode", "register", key, CONNECTION, "--name", name])
        self._flwr(commands)

    def start_supernodes(self, names: Sequence[str]) -> None:
        """Start hospitals' SuperNodes and wait until each is connected.

        The SuperLink takes one that was killed for connected for some seconds more, and refuses another
        under the same key: so one that is refused is started again.
        """
        for name in names:
            self.launch_supernode(name, self.federation / name)
        for name in names:
            self._await(name, partial(self._is_connected, name))

    def _is_connected(self, name: str) -> bool:
        said = self.log(name).read_text("utf-8", "replace")
        if _STILL_CONNECTED in said and self._processes[name].poll() is not None:
            time.sleep(2.0)
            self.launch_supernode(name, self.federation / name)
            return False
        return _READY in said

    def launch_supernode(self, name: str, folder: Path) -> subprocess.Popen:
        """Start one SuperNode from ``folder`` and do not wait for it."""
        self.log(name).unlink(missing_ok=True)
        port = str(self._ports[name])
        return self._start("supernode", "--folder", str(folder), "--port", port, name=name)

    def log(self, name: str) -> Path:
        """Return a process's log: ``"superlink"``, or a hospital's name."""
        return self.logs / f"{name}.log"

    def process(self, name: str) -> subprocess.Popen:
        """Return a process that was started."""
        return self._processes[name]

    def flwr(self, *arguments: str) -> str:
        """Run the command ``flwr`` against this federation and return what it prints."""
        return self._flwr([list(arguments)])

    def _flwr(self, commands: Sequence[Sequence[str]]) -> str:
        """Run several commands in one process: importing Flower takes longer than what they do."""
        done = subprocess.run(
            [*_FLWR, json.dumps(commands)],
            env=self._environment(self.coordinator.flower_home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=self._patience,
            text=True,
        )
        if done.returncode:
            raise ProcessError(f"flwr {' '.join(commands[0][:2])} failed: {_last_line(done.stdout)}")
        return done.stdout

    def submit(
        self,
        app: Path,
        run_config: Mapping[str, Any],
        federation_config: Optional[Mapping[str, Any]] = None,
    ) -> str:
        """Start a run of the app in the checkout ``app`` and return Flower's number of it.

        ``federation_config`` says how a simulation is run, e.g. ``{"num-supernodes": 100}``.
        """
        options: List[str] = []
        for flag, given in (("--run-config", run_config), ("--federation-config", federation_config)):
            values = " ".join(f"{key}={_toml(value)}" for key, value in (given or {}).items())
            options += [flag, values] if values else []
        printed = self.flwr("run", str(app), CONNECTION, "--format", "json", *options)
        return str(_json(printed)["run-id"])

    def wait(self, run: str, timeout: float, show: Callable[[str], None] = lambda line: None) -> str:
        """Wait until a run has finished and return its status, ``"finished:completed"`` if all went well.

        The server app's log goes to ``logs/run.log`` and line by line to ``show``. Raises
        :class:`ProcessError` where it takes longer.
        """
        deadline = time.monotonic() + timeout
        with open(self.log("run"), "ab") as log, open(self.log("run"), encoding="utf-8") as lines:
            lines.seek(0, os.SEEK_END)
            follower = subprocess.Popen(
                [*_FLWR, json.dumps([["log", run, CONNECTION, "--stream"]])],
                env=self._environment(self.coordinator.flower_home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                ended = False
                while not ended:
                    ended = follower.poll() is not None
                    for line in lines:
                        show(line.rstrip("\n"))
                    if time.monotonic() > deadline:
                        raise ProcessError(
                            f"run {run} did not finish within {timeout:.0f} s: see {self.log('run')}"
                        )
                    time.sleep(0.2)
            finally:
                follower.kill()
                follower.wait()
        self._check("superlink")
        return self.status(run)

    def status(self, run: str) -> str:
        """Return a run's status, e.g. ``"running"`` or ``"finished:completed"``."""
        printed = self.flwr("list", CONNECTION, "--run-id", run, "--format", "json")
        return str(_json(printed)["runs"][0]["status"])

    def kill(self, name: str) -> None:
        """Kill a process and its helpers at once, as a power cut would."""
        self.signal(name, signal.SIGKILL)
        self._processes.pop(name).wait()

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process and its helpers; SIGSTOP makes one that never answers."""
        for pid in self._pids({_PROCESS: name}):
            _signal(pid, number)

    def stop(self) -> None:
        """Stop everything; what does not stop within seconds is killed."""
        for pid in self._pids():
            _signal(pid, signal.SIGCONT)  # a stopped one would not hear the other
            _signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + 8.0
        while self._pids() and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.05)
        for pid in self._pids():
            _signal(pid, signal.SIGKILL)
        for process in self._processes.values():
            process.wait()
        self._processes.clear()

    def running(self) -> List[int]:
        """Return the ids of this federation's processes that are alive."""
        self._reap()
        return self._pids()

    def _start(self, module: str, *arguments: str, name: Optional[str] = None) -> subprocess.Popen:
        name = name or module
        home = self.coordinator.flower_home if module == "superlink" else self.federation / name / "flower"
        environment = self._environment(home)
        environment[_PROCESS] = name
        with open(self.log(name), "ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"skinfl.flower.{module}", *arguments, "--parent", str(os.getpid())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C reaches this process alone
            )
        return self._processes[name]

    def _environment(self, home: Path) -> Dict[str, str]:
        environment = flower_environment(home, {**os.environ, **self._extra})
        environment[MARK] = self._mark
        root = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        environment["PYTHONUNBUFFERED"] = "1"
        return environment

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._patience
        while not ready():
            self._check(name)
            if time.monotonic() > deadline:
                raise ProcessError(
                    f"{name} was not ready within {self._patience:.0f} s: see {self.log(name)}"
                )
            time.sleep(0.1)

    def _check(self, name: str) -> None:
        code = self._processes[name].poll()
        if code is not None:
            text = self.log(name).read_text("utf-8", "replace")
            raise ProcessError(f"{name} ended with status {code}: {_last_line(text)} (see {self.log(name)})")

    def _superlink_answers(self) -> bool:
        context = ssl.create_default_context(cafile=str(self.coordinator.authority))
        try:
            url = f"https://{_LOOPBACK}:{self.coordinator.port}/health"
            return urllib.request.urlopen(url, context=context, timeout=2).status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _pids(self, wanted: Optional[Mapping[str, str]] = None) -> List[int]:
        """Return the processes with this federation's mark; some of Flower's have sessions of their own."""
        lines = {f"{k}={v}".encode() for k, v in {MARK: self._mark, **(wanted or {})}.items()}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = set((folder / "environ").read_bytes().split(b"\0"))
            except OSError:
                continue
            if lines <= environment and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        if not found and not Path("/proc/self/environ").exists():  # no Linux: the processes started here
            found = [p.pid for p in self._processes.values() if p.poll() is None]
        return found

    def _reap(self) -> None:
        for process in self._processes.values():
            process.poll()


def _leave(number: int, frame: Optional[FrameType]) -> None:
    raise SystemExit(128 + number)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _toml(value: Any) -> str:
    """Return a value as ``--run-config`` takes it, which knows no escapes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if '"' in value or "\n" in value:
            raise ProcessError(
                f"{value!r} cannot be given to flwr run: it holds quotation marks or new lines"
            )
        return f'"{value}"'
    return repr(value)


def _json(printed: str) -> Dict[str, Any]:
    try:
        answer = json.loads(printed[printed.find("{") :])
    except ValueError:
        raise ProcessError(f"flwr answered: {_last_line(printed)}") from None
    if not answer.get("success", True):
        raise ProcessError(f"flwr refused: {answer.get('error-message', answer)}")
    return answer


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
