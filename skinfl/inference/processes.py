"""How the processes that read strangers' ciphertexts are started.

Not multiprocessing's own way, which would import the caller's main module, and with it torch, into a
process that has no use for either.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Dict


def python(statement: str) -> Dict[str, Any]:
    """Return what ``subprocess`` needs to run a statement in a Python that imports as this one does."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return {"args": [sys.executable, "-c", statement], "env": {**os.environ, "PYTHONPATH": path}}
