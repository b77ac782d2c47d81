"""`python -m keyrack`, and the command `keyrack`."""

import sys

from keyrack.cli import run, streams


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(streams.guard(run, sys.argv[1:]))


if __name__ == "__main__":
    main()
