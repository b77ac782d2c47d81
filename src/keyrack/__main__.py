"""`python -m keyrack`, and the command `keyrack`."""

import sys

from keyrack.cli import run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
