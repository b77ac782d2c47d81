"""`python -m keyrack`, and the command `keyrack`."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:2] == ["serve"]:
        _stop_at_once()
    from keyrack.cli import quick  # loads next to nothing, and so comes before all else

    try:
        if quick.run(sys.argv[1:]):
            return
    except KeyboardInterrupt:
        sys.exit(130)
    from keyrack.cli import run, streams

    sys.exit(streams.guard(run, sys.argv[1:]))


def _stop_at_once() -> None:
    """Let a signal to end be a stop, with exit code 0, as long as there is nothing to undo.

    Before that, a signal meets Python's own start, some 20 ms, and ends it as it ends any program.
    """
    import os
    import signal

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda _number, _frame: os._exit(0))


if __name__ == "__main__":
    main()
