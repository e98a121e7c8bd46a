"""The environment that Flower's processes run in: a home of their own, and nothing sent to anyone."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Dict, Iterator, Mapping

from skinfl.errors import MissingExtra, SettingsError, is_missing
from skinfl.flower.provisioning.folders import COORDINATOR_FILE

#: names the coordinator's folder to the server app
COORDINATOR_VARIABLE = "SKINFL_COORDINATOR"
#: names the provisioned federation that a simulation uses, where it was made beforehand
FEDERATION_VARIABLE = "SKINFL_FEDERATION"
#: the minor versions of Flower that this package was tried with, and what pyproject.toml allows
TRIED = ("1.41", "1.42")
ALLOWED = ">=1.41,<1.43"
_WAIT_SECONDS = 600.0


def flower_environment(home: Path, base: Mapping[str, str]) -> Dict[str, str]:
    """Return ``base`` with what every Flower process of a federation needs.

    Flower starts its helpers by name, so this Python's scripts come first on the path. Telemetry and
    the check for updates are off. Polling for tasks ten times a second instead of once saves a second
    per message. No second way in is opened, whatever ``base`` says: Flower's old interfaces on ports of
    their own stay off, and only this machine's own proxy is believed about where a request came from.
    """
    found = dict(base)
    found["FLWR_HOME"] = str(home)
    found["FLWR_TELEMETRY_ENABLED"] = "0"
    found["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] = "1"
    found["FLWR_INTERNAL_GRPC_CONTROL_API"] = found["FLWR_INTERNAL_GRPC_FLEET_API"] = "0"
    found["FORWARDED_ALLOW_IPS"] = "127.0.0.1"
    found["RAY_USAGE_STATS_ENABLED"] = "0"
    found.setdefault("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.1")
    found["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), found.get("PATH", os.defpath)])
    return found


def flower_home() -> Path:
    """Return ``$FLWR_HOME``, where Flower keeps the apps it was given."""
    return Path(os.environ.get("FLWR_HOME") or Path.home() / ".flwr")


def simulated_federation(flower_home: Path, run_id: int) -> Path:
    """Return where the federation of a simulated run lies."""
    given = os.environ.get(FEDERATION_VARIABLE)
    return Path(given) if given else flower_home / "skinfl" / str(run_id)


def wait_for_federation(federation: Path) -> Path:
    """Return the federation's folder once the coordinator has made it."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while not (federation / "coordinator" / COORDINATOR_FILE).is_file():
        if time.monotonic() > deadline:
            raise SettingsError(f"{federation} was not made: see the server app's log")
        time.sleep(0.2)
    return federation


def prepare(home: Path) -> None:
    """Set this process up to become one of Flower's; must come before the first import of ``flwr``.

    Raises :class:`~skinfl.errors.MissingExtra` where Flower is not installed, and
    :class:`~skinfl.errors.SettingsError` where it is another release than those tried: what guards a
    hospital and the coordinator reaches into Flower, and was proved on these.
    """
    os.umask(0o077)  # Flower's database and logs are nobody else's business
    os.environ.update(flower_environment(home, os.environ))
    home.mkdir(parents=True, exist_ok=True)
    try:
        import flwr  # noqa: F401
    except ImportError as error:
        if not is_missing("flwr", error):
            raise
        raise MissingExtra("flwr", "flower", "a hospital on a machine of its own") from None
    installed = version("flwr")
    if ".".join(installed.split(".")[:2]) not in TRIED:
        raise SettingsError(
            f"Flower {installed} is installed, and a deployment was tried with {' and '.join(TRIED)} only: "
            f"pip install 'flwr{ALLOWED}'"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Let nothing be logged meanwhile: what a self-check asks for happened to nobody."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def stop_with(parent: int) -> None:
    """End this process when process ``parent`` is gone, however that ended; 0 means never."""
    if parent:
        from flwr.supercore.app_utils import start_parent_process_monitor

        start_parent_process_monitor(parent)
