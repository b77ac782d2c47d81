"""The lines of an export: how they are read from a service anew, and looked at on this side."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from keyrack.cli.service import Service

_PAGE_KEYS: Final = "500"
_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"


class ExportLine(msgspec.Struct, omit_defaults=True):
    """A line of an export. The value is JSON as it was written, or base64 where `encoding` says."""

    key: str
    value: Raw
    type: str | UnsetType = UNSET
    encoding: str | UnsetType = UNSET
    ttl: float | UnsetType | None = UNSET


class _Listed(msgspec.Struct):
    key: str
    value: Raw
    type: str
    ttl: float | None = None
    encoding: str | UnsetType = UNSET


class _Page(msgspec.Struct):
    keys: list[_Listed]
    next: str | None


_page: Final = msgspec.json.Decoder(_Page).decode
read: Final = msgspec.json.Decoder(ExportLine).decode
"""Make an `ExportLine` of a line. Raises `msgspec.DecodeError`."""


def after(service: Service, prefix: bytes, key: str | None) -> Iterator[bytes]:
    """Yield the lines of the keys under a prefix that come after a key, page by page.

    The pages of the list are asked for, because an export always begins with the first key.
    """
    while True:
        asked: list[tuple[str, str | bytes]] = [
            ("prefix", service.prefixed(prefix)),
            ("values", "true"),
            ("limit", _PAGE_KEYS),
        ]
        if key is not None:
            asked.append(("after", key))
        page = _page(service.raw("/v1/keys", asked))
        yield b"".join(map(_line, page.keys))
        key = page.next
        if key is None:
            return


def _line(listed: _Listed) -> bytes:
    """Return a key of a page as an export has it."""
    raw, encoding = bytes(listed.value), listed.encoding
    is_json = listed.type == _JSON and encoding is UNSET
    if is_json and not _stays_as_it_is(raw):
        raw, encoding = b'"%b"' % b64encode(raw), "base64"
    line = ExportLine(listed.key, Raw(raw))
    if encoding is not UNSET or listed.type != (_TEXT if raw[:1] == b'"' else _JSON):
        line.type = listed.type
    line.encoding = encoding
    if listed.ttl is not None:
        line.ttl = listed.ttl
    return msgspec.json.encode(line) + b"\n"


def _stays_as_it_is(raw: bytes) -> bool:
    # A JSON string of type application/json would be taken for text, and a line break for an end.
    return not {10, 13} & set(raw) and raw[:1] != b'"' and raw.strip() == raw
