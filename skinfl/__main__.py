"""``python -m skinfl``: the command line, where no console script is on the path."""

from skinfl.cli import main

if __name__ == "__main__":
    main()
