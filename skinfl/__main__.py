"""The program: the console script ``skinfl``, and ``python -m skinfl`` where no script is on the path."""

from __future__ import annotations

import sys

from skinfl.errors import broken_package


def main() -> None:
    """Start the command line; a package that breaks while it is loaded is named in one line."""
    try:
        from skinfl.cli import main as start
    except Exception as error:
        broken = broken_package(error)
        if broken is None:
            raise
        print(f"error: {broken}", file=sys.stderr)
        raise SystemExit(2) from None
    start()


if __name__ == "__main__":
    main()
