"""The command line. Each verb is a row in `table` and a module with `COMMAND` and `run`.

A verb's module is imported only when it is asked for: `keyrack get` in a shell's loop should not
wait for the server's modules, nor for those of other verbs.
"""

from __future__ import annotations


def run(arguments: list[str]) -> int:
    """Do what the arguments say and return the exit code."""
    from keyrack.cli import main  # see above

    return main.run(arguments)
