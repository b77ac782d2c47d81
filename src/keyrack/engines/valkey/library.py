"""The library of functions inside Valkey: its text, its name, and how it is called.

Its name and those of its functions hold a hash of the text. So a library never changes once it is
loaded, loading it twice is no harm, and processes of two versions of Keyrack can share a server
while one of them is replaced.
"""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files
from typing import Final

_TEXT: Final = files(__package__).joinpath("library.lua").read_text(encoding="ascii")
VERSION: Final = hashlib.sha256(_TEXT.encode()).hexdigest()[:8]
SOURCE: Final = f"#!lua name=keyrack_{VERSION}\n{_TEXT.replace('@', VERSION)}".encode()


@functools.cache
def function(name: str) -> bytes:
    """Return the full name of one of the library's functions."""
    return f"keyrack_{name}_{VERSION}".encode()
