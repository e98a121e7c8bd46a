"""Which modules a Python process has loaded in the end: what a user waits for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Sequence, Set

ROOT = Path(__file__).resolve().parent.parent
#: what takes seconds to load
HEAVY = {"torch", "torchvision", "sklearn", "scipy", "matplotlib", "pandas", "syft", "sympc"}
#: what reads whole data sets
READERS = {
    "skinfl.data." + name
    for name in (
        *("dataset", "detect", "ham10000", "hmnist", "index", "inspect", "isic2018", "isic2019", "medmnist"),
        *("pad_ufes", "readers", "synthetic"),
    )
}


class Ended(NamedTuple):
    """A process that ended: its status, what it printed, and the modules it had loaded."""

    status: int
    output: str
    errors: str
    modules: Set[str]


def run_python(statement: str, arguments: Sequence[str] = ()) -> Ended:
    """Run a statement in a process of its own."""
    script = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))\n" + statement
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    errors, _, modules = done.stderr.rstrip("\n").rpartition("\n")
    return Ended(done.returncode, done.stdout, errors, set(json.loads(modules)))


def run_skinfl(*arguments: str) -> Ended:
    """Run the command line in a process of its own."""
    return run_python("from skinfl.cli import main; main()", arguments)
