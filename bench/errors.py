"""What can go wrong in a bench run."""


class BenchError(Exception):
    """A measurement cannot be made. The message says why, and what would enable it."""
