"""`python -m keyrack`, and the command `keyrack`."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from keyrack.cli import quick  # loads next to nothing, and so comes before all else

    try:
        if quick.run(sys.argv[1:]):
            return
    except KeyboardInterrupt:
        sys.exit(130)
    from keyrack.cli import run, streams

    sys.exit(streams.guard(run, sys.argv[1:]))


if __name__ == "__main__":
    main()
