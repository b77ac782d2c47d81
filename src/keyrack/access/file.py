"""The operator's file: read whole or refused, with a sentence that says where and why.

The server never writes it, and uses none of it where a part of it is wrong.
"""

from __future__ import annotations

import os
import stat
import tomllib
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from keyrack.access import rules, tokens
from keyrack.access.grant import rights_of
from keyrack.access.model import (
    BUILT_IN,
    MOST_FENCES,
    MOST_TOKENS,
    AccessFile,
    Certificate,
    Claims,
    FenceRule,
    Issuer,
    Peer,
    Policy,
    Token,
    checked_fence,
    checked_policy_name,
    checked_token_name,
)
from keyrack.access.sections import AccessFileError, Lines, Section

if TYPE_CHECKING:
    from collections.abc import Iterable

ALGORITHMS: Final = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
)
"""Signatures of JSON Web Tokens that can be allowed: none whose check needs a shared secret."""
_MOST_BYTES: Final = 16 << 20


class LoadedFile(NamedTuple):
    """What a file says, what else was read for it, and warnings about it."""

    access: AccessFile
    files: tuple[str, ...]
    """The file and those that it names; a change of any of them is a change of it."""
    warnings: list[str]


def load(path: str) -> LoadedFile:
    """Read a file and what it names. Raises `AccessFileError`."""
    warnings = _mode_warnings(path)
    access = parse(_text(path), path)
    directory = os.path.dirname(os.path.realpath(path))
    issuers, files = [], [path]
    for issuer in access.issuers:
        if is_url(issuer.jwks):
            issuers.append(issuer)
            continue
        named = os.path.join(os.path.dirname(path) or ".", issuer.jwks)
        if not os.path.exists(named):
            named = os.path.join(directory, issuer.jwks)
        issuers.append(msgspec.structs.replace(issuer, keys=_jwks(named)))
        files.append(named)
    return LoadedFile(
        msgspec.structs.replace(access, issuers=tuple(issuers)), tuple(files), warnings
    )


def is_url(jwks: str) -> bool:
    """Tell whether an issuer's keys are fetched, not read from a file."""
    return jwks.startswith("https://")


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise AccessFileError(f"{path} cannot be read: {error.strerror}.") from None
    if len(data) > _MOST_BYTES:
        raise AccessFileError(f"{path} has more than {_MOST_BYTES} bytes.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AccessFileError(f"{path}, line {line}: this is no UTF-8.") from None


def _mode_warnings(path: str) -> list[str]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise AccessFileError(f"{path} cannot be read: {error.strerror}.") from None
    if not stat.S_ISREG(found.st_mode):
        raise AccessFileError(f"{path} is no file.")
    if found.st_mode & stat.S_IWOTH:
        raise AccessFileError(f"{path} may be written by everybody: chmod o-w it.")
    if found.st_uid not in (0, os.geteuid()):
        raise AccessFileError(
            f"{path} belongs to user {found.st_uid}, who could change it: it has to belong to root "
            f"or to the user of this service ({os.geteuid()})."
        )
    if found.st_mode & stat.S_IROTH:
        return [f"{path} may be read by everybody; it holds hashes only, yet chmod o-r is better."]
    return []


def _jwks(path: str) -> str:
    text = _text(path)
    check_jwks(text, path)
    return text


def check_jwks(text: str, where: str) -> None:
    """Make sure that a text is a JSON Web Key Set. Raises `AccessFileError`."""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise AccessFileError(f"{where} is no JSON: {error}.") from None
    if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
        raise AccessFileError(f"{where} is no JSON Web Key Set: it has no list `keys`.")


# What the text says


def parse(text: str, path: str = "the file") -> AccessFile:
    """Return what a file's text says. Raises `AccessFileError`."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AccessFileError(f"{path} is no TOML: {error}.") from None
    return _access(Section(Lines(text, path), raw, 1, "the file"))


_OF_THE_FILE: Final = (
    "version", "anonymous", "policies", "tokens", "certificates", "peers", "issuers", "fences",
)  # fmt: skip
_OF_A_TOKEN: Final = (
    "id", "hash", "name", "policies", "rules", "expires", "disabled", "rate", "watches", "from",
    "created", "created_by", "hash_next", "not_after",
)  # fmt: skip
_OF_AN_ISSUER: Final = (
    "issuer", "audience", "jwks", "algorithms", "map", "ca", "bearer_token_file",
)  # fmt: skip


def _access(whole: Section) -> AccessFile:
    whole.only(_OF_THE_FILE)
    version = whole.raw.get("version")
    if version != 1 or isinstance(version, bool):
        raise whole.wrong("version", "the file says `version = 1`, the only one there is")
    policies = _policies(whole)
    known = frozenset((*BUILT_IN, *policies))
    made = AccessFile(
        anonymous=whole.policies(known, "anonymous"),
        policies=policies,
        tokens=tuple(_token(one, known) for one in whole.tables("tokens")),
        certificates=tuple(_certificate(one, known) for one in whole.tables("certificates")),
        peers=tuple(_peer(one, known) for one in whole.tables("peers")),
        issuers=tuple(_issuer(one, known) for one in whole.tables("issuers")),
        fences=_fences(whole),
    )
    _check_together(whole, made)
    return made


def _policies(whole: Section) -> dict[str, Policy]:
    raw = whole.raw.get("policies", {})
    if not isinstance(raw, dict):
        raise whole.wrong("policies", "`policies` is a table")
    start = whole.lines.table("policies")
    return {name: _policy(whole.lines, name, given, start) for name, given in raw.items()}


def _policy(lines: Lines, name: str, given: object, start: int) -> Policy:
    called = f"the policy {name!r}"
    if isinstance(given, dict):
        section = Section(lines, given, max(lines.table(f"policies.{name}"), start), called)
        section.only(("rules", "rate", "watches"))
    else:
        section = Section(lines, {"rules": given}, lines.key(name, start), called)
    try:
        checked_policy_name(name)
    except ValueError as error:
        raise lines.wrong(section.line, str(error)) from None
    return Policy(section.rules(), section.rate(), section.whole("watches"))


def _fences(whole: Section) -> dict[str, FenceRule]:
    raw = whole.raw.get("fences", {})
    if not isinstance(raw, dict):
        raise whole.wrong("fences", "`fences` is a table")
    if len(raw) > MOST_FENCES:
        raise whole.wrong("fences", f"there are at most {MOST_FENCES} fences")
    start = whole.lines.table("fences")
    return {name: _fence(whole.lines, name, given, start) for name, given in raw.items()}


def _fence(lines: Lines, name: str, given: object, start: int) -> FenceRule:
    line = max(lines.table(f"fences.{name}"), lines.key(name, start))
    if not isinstance(given, dict):
        raise lines.wrong(line, f'the fence {name!r} is like {{ keys = "jobs/*", lock = "jobs" }}')
    section = Section(lines, given, line, f"the fence {name!r}")
    section.only(("keys", "lock"))
    keys = section.text("keys", bool, "a key, or a beginning of keys and `*`")
    try:
        return checked_fence(name, FenceRule(keys, section.text("lock", bool, "a lock's name")))
    except ValueError as error:
        raise lines.wrong(line, str(error)) from None


def _token(section: Section, known: frozenset[str]) -> Token:
    section.only(_OF_A_TOKEN)
    if ("hash_next" in section.raw) != ("not_after" in section.raw):
        raise section.wrong("hash_next", "`hash_next` and `not_after` go together")
    return Token(
        id=section.text("id", tokens.is_id, "8 letters and digits, as `keyrack token new` has it"),
        hash=section.digest("hash"),
        name=section.checked("name", checked_token_name) or "",
        policies=section.policies(known),
        rules=section.rules(),
        expires=section.moment("expires"),
        disabled=section.switch("disabled"),
        rate=section.rate(),
        watches=section.whole("watches"),
        sources=section.networks("from"),
        created=section.moment("created"),
        created_by=section.checked("created_by", str),
        hash_next=section.digest("hash_next") if "hash_next" in section.raw else None,
        not_after=section.moment("not_after"),
    )


def _certificate(section: Section, known: frozenset[str]) -> Certificate:
    section.only(("san", "policies", "rules"))
    san = section.text("san", bool, "a name that certificates show")
    return Certificate(san, section.policies(known), section.rules())


def _peer(section: Section, known: frozenset[str]) -> Peer:
    section.only(("uid", "gid", "policies", "rules"))
    uid, gid = section.whole("uid"), section.whole("gid")
    if uid is None and gid is None:
        raise section.lines.wrong(section.line, "a peer has a `uid`, a `gid` or both")
    return Peer(uid, gid, section.policies(known), section.rules())


def _issuer(section: Section, known: frozenset[str]) -> Issuer:
    section.only(_OF_AN_ISSUER)
    return Issuer(
        issuer=section.text("issuer", bool, "what its tokens say in `iss`"),
        audience=section.text("audience", bool, "what its tokens say in `aud`"),
        jwks=section.text("jwks", _is_place, "a file, or a URL that begins with https://"),
        algorithms=_algorithms(section),
        map=tuple(_claims(one, known) for one in section.tables("map", "issuers.map")),
        ca=section.checked("ca", str),
        bearer_token_file=section.checked("bearer_token_file", str),
    )


def _is_place(jwks: str) -> bool:
    return bool(jwks) and ("://" not in jwks or is_url(jwks))


def _algorithms(section: Section) -> tuple[str, ...]:
    given = section.texts("algorithms")
    if not given:
        raise section.wrong("algorithms", "`algorithms` names at least one")
    for one in given:
        if one not in ALGORITHMS:
            allowed = ", ".join(sorted(ALGORITHMS))
            raise section.wrong("algorithms", f"{one!r} is not allowed; {allowed} are")
    return given


def _claims(section: Section, known: frozenset[str]) -> Claims:
    section.only(("claims", "policies", "rules"))
    claims = section.raw.get("claims")
    if (
        not isinstance(claims, dict)
        or not claims
        or not all(isinstance(value, str) for value in claims.values())
    ):
        raise section.wrong("claims", '`claims` is like { sub = "job:deploy" }')
    return Claims(claims, section.policies(known), section.rules())


# What must fit together


def _check_together(whole: Section, access: AccessFile) -> None:
    if len(access.tokens) > MOST_TOKENS:
        raise whole.wrong("tokens", f"there are at most {MOST_TOKENS} tokens")
    _check_distinct(whole.lines, "id", [one.id for one in access.tokens])
    hashes = [h for one in access.tokens for h in (one.hash, one.hash_next) if h is not None]
    _check_distinct(whole.lines, "hash", hashes)
    given = [
        (access.anonymous, ()),
        *((one.policies, one.rules) for one in access.tokens),
        *((one.policies, one.rules) for one in access.certificates),
        *((one.policies, one.rules) for one in access.peers),
        *((one.policies, one.rules) for issuer in access.issuers for one in issuer.map),
    ]
    for policies, own in dict.fromkeys(given):
        _check_number_of_rules(whole.lines, policies, own, access)


def _check_distinct(lines: Lines, key: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            first = lines.value(value, 1)
            again = lines.value(value, first + 1)
            raise lines.wrong(again, f"the {key} {value!r} is that of line {first} as well")
        seen.add(value)


def _check_number_of_rules(
    lines: Lines, policies: tuple[str, ...], own: tuple[str, ...], access: AccessFile
) -> None:
    try:
        rights_of(policies, own, access.policies)
    except rules.RuleError as error:
        line = lines.value((*own, *policies)[-1], 1)
        raise lines.wrong(line, str(error)) from None
