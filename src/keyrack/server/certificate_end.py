"""When a certificate ends.

Python's `ssl` tells that of a peer's certificate only, and a package for certificates would be
large for one date. A certificate is a sequence whose first member is a sequence as well: version,
serial number, algorithm, issuer, validity (RFC 5280). The date is the second one of the validity.
"""

from __future__ import annotations

import binascii
import re
import ssl
from datetime import UTC, datetime
from typing import Final

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_FORMATS: Final = {_UTC_TIME: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
_CENTURY: Final = 2050
"""Two digits of a year mean 1950 to 2049."""


def certificate_end(pem: bytes) -> float | None:
    """Return when the first certificate of a text ends, in seconds since 1970, if that is known."""
    found = _PEM.search(pem)
    try:
        der = b"" if found is None else ssl.PEM_cert_to_DER_cert(found[0].decode())
        (_, certificate), *_ = _members(der)
        (_, about), *_ = _members(certificate)
        members = [member for member in _members(about) if member[0] != _VERSION]
        _, (tag, end) = _members(members[3][1])
        moment = datetime.strptime(end.decode(), _FORMATS[tag]).replace(tzinfo=UTC)
    except (ValueError, KeyError, IndexError, binascii.Error):
        return None
    if tag == _UTC_TIME and moment.year >= _CENTURY:
        moment = moment.replace(year=moment.year - 100)
    return moment.timestamp()


def _members(der: bytes) -> list[tuple[int, bytes]]:
    """Return what stands one after the other: tags, and their contents. Raises `ValueError`."""
    found, position = [], 0
    while position < len(der):
        tag, size, position = der[position], der[position + 1], position + 2
        if size & 0x80:
            digits = size & 0x7F
            size = int.from_bytes(der[position : position + digits], "big")
            position += digits
        if position + size > len(der):
            raise ValueError
        found.append((tag, der[position : position + size]))
        position += size
    return found
