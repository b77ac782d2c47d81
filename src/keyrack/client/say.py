"""What the client logs, as `keyrack.client`. `logging` is loaded when there is something to say."""

from __future__ import annotations


def warning(text: str, *words: object) -> None:
    """Log what somebody may have to do something about."""
    import logging  # see above

    logging.getLogger("keyrack.client").warning(text, *words)


def info(text: str, *words: object) -> None:
    """Log what went on by itself."""
    import logging  # see above

    logging.getLogger("keyrack.client").info(text, *words)
