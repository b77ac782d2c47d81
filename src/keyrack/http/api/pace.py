"""How long work on many keys leaves room for others."""

from __future__ import annotations

import asyncio
import time
from typing import Final

_SPELL_SECONDS: Final = 0.0005
_PAUSE_SECONDS: Final = 0.001


class Pace:
    """Spreads long work out: others are served after each step, and have about half of the time."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def step(self) -> None:
        """End a step."""
        if time.monotonic() - self._began < _SPELL_SECONDS:
            await asyncio.sleep(0)
            return
        await asyncio.sleep(_PAUSE_SECONDS)
        self._began = time.monotonic()
