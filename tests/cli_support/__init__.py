"""Running the command line in tests: inside this process, as a process, and on a terminal."""

from cli_support.running import Ended, Keyrack, shell

__all__ = ["Ended", "Keyrack", "shell"]
