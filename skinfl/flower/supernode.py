"""Start a hospital's SuperNode: ``python -m skinfl.flower.supernode --folder DIR``.

This is ``flower-supernode`` with two additions. A SuperNode runs whatever app bundle the coordinator
sends. Here it runs only bundles whose SHA-256 the hospital wrote into ``approved-code.txt``; for any
other the coordinator gets an error, and nothing of the bundle is unpacked or run. Before it connects it
proves that with a bundle that nobody approved, and does not start otherwise. And it is quicker: it
asks for messages twice a second, not every three seconds, forks the process for each message from a
warm one (:mod:`skinfl.flower.superexec`), and reports so often that one that was killed is noticed, and
may connect again, after 20 seconds instead of 60.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import secrets
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, List, Optional, Tuple

from skinfl.console import fail
from skinfl.errors import SettingsError, SkinflError
from skinfl.flower.environment import prepare, quiet, stop_with
from skinfl.flower.provisioning.folders import HospitalFolder, read_hospital

POLL_SECONDS = 0.5
#: Flower's lower limit; a node counts as gone after twice as long without a sign of life
HEARTBEAT_SECONDS = 10


def arguments(folder: HospitalFolder, port: int) -> List[str]:
    """Return the command line of ``flower-supernode``."""
    if "'" in str(folder.path) or '"' in str(folder.path):
        raise SettingsError(f"{folder.path}: Flower takes no path with quotation marks; move the folder")
    return [
        "flower-supernode",
        *("--superlink", folder.coordinator),
        *("--root-certificates", str(folder.authority)),
        *("--auth-supernode-private-key", str(folder.node_key)),
        *("--node-config", f'folder="{folder.path}"'),
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
    ]


def is_approved(folder: HospitalFolder, bundle: bytes) -> bool:
    """Whether the hospital approved this app bundle; its file is read anew each time."""
    digest = hashlib.sha256(bundle).hexdigest()
    if digest in folder.approved():
        return True
    print(
        f"refused: the coordinator sent code with SHA-256 {digest}, which is not in {folder.approved_code}",
        file=sys.stderr,
        flush=True,
    )
    return False


def adapt(folder: HospitalFolder) -> None:
    """Make Flower's check of a bundle's signatures a check of the hospital's own list, and hurry it.

    Flower verifies signatures of its own hub only, and only where trusted entities are named; that
    place in the SuperNode is used here. Raises :class:`~skinfl.errors.SettingsError` where this Flower
    has no such place, since code would then run unchecked.
    """
    from flwr.supercore import heartbeat
    from flwr.supernode import fleet_http_connection
    from flwr.supernode import start_client_internal as supernode

    heartbeat.HEARTBEAT_DEFAULT_INTERVAL = HEARTBEAT_SECONDS
    fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL = HEARTBEAT_SECONDS
    if not hasattr(supernode, "_verify_fab") or not hasattr(supernode, "_pull_and_store_message"):
        raise SettingsError(
            "this Flower cannot be made to check code: install a release that docs/deployment.md names"
        )
    pull = supernode._pull_and_store_message

    def pull_checked(**known: Any) -> Any:
        get_fab: Callable[[str, int], Any] = known["get_fab"]

        def get_labelled_fab(fab_hash: str, run_id: int) -> Any:
            # without this label Flower refuses before it comes to the check
            fab = get_fab(fab_hash, run_id)
            fab.verifications["valid_license"] = "checked by the hospital"
            return fab

        checked = {**known, "get_fab": get_labelled_fab, "trusted_entities": {"hospital": folder.name}}
        while (run := pull(**checked)) is None:
            time.sleep(POLL_SECONDS)
        return run

    supernode._pull_and_store_message = pull_checked
    supernode._verify_fab = lambda fab, _: is_approved(folder, fab.content)


class _Probe:
    """Stands in for whatever a SuperNode keeps things in; knows nothing, and notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: List[str] = []

    def get_run(self, run_id: int) -> None:
        """Know no run, so that its code has to be fetched."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name.startswith("__"):
            raise AttributeError(name)
        self.asked.append(name)
        return lambda *args, **kwargs: 0


def prove_approval(folder: HospitalFolder) -> None:
    """Let the SuperNode receive a made-up message whose code nobody approved; it must not take it.

    It goes the way that a message from the coordinator goes, up to the place where code is stored to be run.
    Raises :class:`~skinfl.errors.SettingsError` unless the hospital's list was asked about that very code and
    nothing was stored after it said no.
    """
    from flwr.supernode import start_client_internal as supernode

    code = secrets.token_bytes(32)
    verify, kept = supernode._verify_fab, _Probe()
    verdicts: List[Tuple[bytes, bool]] = []
    metadata = SimpleNamespace(run_id=1, group_id="", message_type="query", message_id="self-check")
    messages = [(SimpleNamespace(metadata=metadata), None)]

    def verify_noted(fab: Any, entities: Any) -> bool:
        verdict = verify(fab, entities)
        verdicts.append((fab.content, verdict))
        return verdict

    supernode._verify_fab = verify_noted
    try:
        with quiet(), redirect_stderr(io.StringIO()):
            supernode._pull_and_store_message(
                state=kept,
                object_store=kept,
                node_config={},
                receive=messages.pop,  # a second one is an error, which ends the proof
                get_run=lambda run_id: SimpleNamespace(fab_hash="self-check"),
                get_fab=lambda fab_hash, run_id: SimpleNamespace(content=code, verifications={}),
                pull_object=kept.pull_object,
                confirm_message_received=kept.confirm_message_received,
                trusted_entities=None,
            )
    except Exception:  # a made-up message cannot be answered; what counts was noted before
        pass
    finally:
        supernode._verify_fab = verify
    stored = {"store_run", "store_fab", "create_task"} & set(kept.asked)
    used = "_pull_and_store_message" in supernode.start_client_internal.__code__.co_names
    if verdicts != [(code, False)] or stored or not used:
        raise SettingsError(
            f"this Flower would run code that {folder.name} did not approve: nothing was started; install a "
            "release that docs/deployment.md names"
        )


def connect(folder: HospitalFolder, port: int, parent: int = 0) -> None:
    """Become the SuperNode; does not return."""
    command = arguments(folder, port)
    folder.sealing_key()  # refuses a key that others can read, before anything is started
    if not folder.approved():
        raise SettingsError(
            f"{folder.approved_code} approves no code yet: "
            f"python -m skinfl.flower.approve --folder {folder.path}"
        )
    prepare(folder.flower_home)
    adapt(folder)
    prove_approval(folder)
    from flwr.supernode.cli.flower_supernode import flower_supernode

    _put_first("flower-superexec", "skinfl.flower.superexec", folder.flower_home / "bin")
    stop_with(parent)
    sys.argv = command
    flower_supernode()


def _put_first(command: str, module: str, scripts: Path) -> None:
    """Let ``module`` run where Flower starts ``command``, which it looks for on the path."""
    scripts.mkdir(exist_ok=True)
    script = scripts / command
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
    script.chmod(0o700)
    os.environ["PATH"] = os.pathsep.join([str(scripts), os.environ["PATH"]])


def main(argv: Optional[List[str]] = None) -> None:
    """Read the command line and connect."""
    parser = argparse.ArgumentParser(prog="python -m skinfl.flower.supernode", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the hospital's folder")
    parser.add_argument("--port", type=int, help="the node's own port, instead of hospital.toml's")
    parser.add_argument("--parent", type=int, default=0, help="end when this process does")
    given = parser.parse_args(argv)
    try:
        folder = read_hospital(given.folder)
        connect(folder, given.port or folder.port, given.parent)
    except SkinflError as error:
        fail(error)


if __name__ == "__main__":
    main()
