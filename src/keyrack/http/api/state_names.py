"""Where a state of Terraform is: paths, keys, and the keys of those that it has replaced."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

from keyrack.engines.contract import MAX_KEY_BYTES
from keyrack.http.api import codec
from keyrack.http.problems import Problem

PATH: Final = b"/v1/terraform/"
KEYS: Final = b"terraform/"
"""What the keys of states begin with."""
_ENDS: Final = (b"/lock", b"/versions")
_PARTS: Final = frozenset((b"lock", b"versions"))
_BELOW: Final = b"/versions/"
_STAMP: Final = "%Y%m%dT%H%M%S"
_MAX_VERSION: Final = len("20261130T171215-") + len(str(2**63))
MAX_NAME: Final = MAX_KEY_BYTES - len(KEYS) - len(_BELOW) - _MAX_VERSION
"""Bytes of a state's name, so that the keys of its versions are none too long."""
_VERSION: Final = re.compile(rb"[0-9]{8}T[0-9]{6}-[0-9]{1,19}").fullmatch


def state_of(path: bytes) -> bytes:
    """Return the key of the state that a raw path below `PATH` names."""
    name = path[len(PATH) :]
    end = next((one for one in _ENDS if name.endswith(one)), b"")
    name = codec.key_of(name.removesuffix(end))
    if len(name) > MAX_NAME:
        raise Problem(
            "bad-key",
            f"The name of a state has at most {MAX_NAME} bytes; this has {len(name)}.",
            limit=MAX_NAME,
            actual=len(name),
        )
    if not _PARTS.isdisjoint(name.split(b"/")):
        raise Problem("bad-key", "No part of a state's name is `lock` or `versions`.")
    return KEYS + name


class Version(NamedTuple):
    """A state that was replaced: the revision that it had, when that was, and its key."""

    revision: int
    replaced: str
    key: bytes


def versions_of(state: bytes) -> bytes:
    """Return what the keys of a state's versions begin with."""
    return state + _BELOW


def version_key(state: bytes, revision: int) -> bytes:
    """Return the key of a version that is replaced now."""
    return b"%b%b%b-%d" % (state, _BELOW, datetime.now(UTC).strftime(_STAMP).encode(), revision)


def version_at(state: bytes, key: bytes) -> Version | None:
    """Return the version of a state that is under a key, None where that is none."""
    name = key[len(state) + len(_BELOW) :]
    if not _VERSION(name):
        return None
    stamp, _, revision = name.decode().partition("-")
    try:
        replaced = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
    return Version(int(revision), replaced.strftime("%Y-%m-%dT%H:%M:%SZ"), key)
