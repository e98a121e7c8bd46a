"""Approve code at a hospital: ``python -m skinfl.flower.approve --folder DIR [--app CHECKOUT]``.

The digest is computed from the hospital's own checkout, which its engineer can read; the coordinator's
bundle must then be the same to the last byte.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path
from typing import List, Optional

from skinfl.console import fail
from skinfl.errors import MissingExtra, SettingsError, SkinflError, is_missing
from skinfl.flower.provisioning.folders import HospitalFolder, read_hospital


def bundle_digest(app: Path) -> str:
    """Return the SHA-256 of the app bundle that ``flwr run`` makes of a checkout."""
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")
    try:
        from flwr.cli.build import build_fab_from_disk
    except ImportError as error:
        if not is_missing("flwr", error):
            raise
        raise MissingExtra("flwr", "flower", "approving code") from None
    if not (app / "pyproject.toml").is_file():
        raise SettingsError(f"{app} has no pyproject.toml: name the checkout of the app with --app")
    try:
        return hashlib.sha256(build_fab_from_disk(app)).hexdigest()
    except ValueError as error:
        raise SettingsError(f"{app} is no Flower app: {error}") from None


def approve(folder: HospitalFolder, digest: str, remark: str) -> None:
    """Add a digest to a hospital's list, once."""
    if digest not in folder.approved():
        with open(folder.approved_code, "a", encoding="utf-8") as f:
            f.write(f"{digest}  # {remark}\n")


def main(argv: Optional[List[str]] = None) -> None:
    """Read the command line and approve."""
    parser = argparse.ArgumentParser(prog="python -m skinfl.flower.approve", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="the hospital's folder")
    parser.add_argument("--app", type=Path, default=Path("."), help="the checkout whose code is approved")
    given = parser.parse_args(argv)
    try:
        folder = read_hospital(given.folder)
        digest = bundle_digest(given.app.resolve())
        approve(folder, digest, f"from {given.app.resolve().name}")
        print(f"{folder.approved_code}: {digest}")
    except SkinflError as error:
        fail(error)


if __name__ == "__main__":
    main()
