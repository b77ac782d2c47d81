"""Quotas: how many keys there may be below a prefix, and how many bytes they may have.

Which there are is kept in `Space.ADMIN`, where a journal and a snapshot keep them too. What is
counted for them is the engine's: see `engines.embedded.quotas`.
"""

from __future__ import annotations

from typing import Final

import msgspec

from keyrack.engines.contract import Quota

QUOTA: Final = b"{quota}r"
"""What the key of a quota in `Space.ADMIN` begins with; its name follows."""
MOST_QUOTAS: Final = 100

encode: Final = msgspec.json.encode
"""Returns a quota as it is kept in `Space.ADMIN`."""
decode: Final = msgspec.json.Decoder(Quota).decode
"""Returns the quota that `encode` was given."""
