"""JSON Web Tokens of issuers that the operator trusts; needs the extra `keyrack[jwt]`.

Only signatures whose check needs no secret of ours are allowed, so that the public key of an issuer
is never taken for a shared one. Issuer, audience and end are required.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Final

import jwt
from jwt import PyJWK, PyJWKSet

from keyrack.access.table import LoginFailed, Reason, Unmapped, Verified

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keyrack.access.model import Claims, Issuer

LEEWAY: Final = 30
"""Seconds by which the clocks of issuer and service may differ."""
MOST_LIFETIME: Final = 86_400
_NOT_KNOWN: Final = "The issuer, the audience or the signature of this JSON Web Token is not right."
_OVER: Final = "The time of this JSON Web Token is over."


class Verifier:
    """Checks JSON Web Tokens. `missing` is called when a key is asked for that is not known yet."""

    def __init__(self, missing: Callable[[Issuer], None] = lambda _: None) -> None:
        self._missing = missing

    def __call__(self, text: str, issuers: Sequence[Issuer], now: float) -> Verified:
        """Return whose a token is. Raises `LoginFailed`, `Unmapped`."""
        try:
            header = jwt.get_unverified_header(text)
            # Whose it claims to be names the key, with which it is verified.
            # nosemgrep: token-that-is-not-verified
            said = jwt.decode(text, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise LoginFailed(Reason.MALFORMED, "This is no JSON Web Token.") from None
        for issuer in issuers:
            if issuer.issuer == said.get("iss") and header.get("alg") in issuer.algorithms:
                key = self._key(issuer, header.get("kid"))
                if key is not None:
                    return _mapped(issuer, _claims(text, key, issuer, now))
        raise LoginFailed(Reason.UNKNOWN, _NOT_KNOWN)

    def _key(self, issuer: Issuer, kid: object) -> PyJWK | None:
        keys = _keys(issuer.keys)
        if kid is None and len(keys) == 1:
            return next(iter(keys.values()))
        if isinstance(kid, str) and kid in keys:
            return keys[kid]
        self._missing(issuer)
        return None


@functools.lru_cache(maxsize=64)
def _keys(text: str) -> dict[str | None, PyJWK]:
    if not text:
        return {}
    try:
        return {key.key_id: key for key in PyJWKSet.from_json(text).keys}
    except (jwt.PyJWTError, ValueError, KeyError, TypeError):
        return {}


def _claims(text: str, key: PyJWK, issuer: Issuer, now: float) -> dict[str, Any]:
    try:
        claims: dict[str, Any] = jwt.decode(
            text,
            key,
            algorithms=list(issuer.algorithms),
            issuer=issuer.issuer,
            audience=issuer.audience,
            options={
                "require": ["iss", "aud", "exp"],
                # The clock is ours; see below.
                "verify_exp": False, "verify_nbf": False, "verify_iat": False,
            },
        )  # fmt: skip
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise LoginFailed(Reason.UNKNOWN, _NOT_KNOWN) from None
    _check_times(claims, now)
    return claims


def _check_times(claims: dict[str, Any], now: float) -> None:
    ends, begins, made = (_moment(claims, name) for name in ("exp", "nbf", "iat"))
    if ends is None or ends + LEEWAY <= now:
        raise LoginFailed(Reason.EXPIRED, _OVER)
    if any(moment is not None and moment > now + LEEWAY for moment in (begins, made)):
        raise LoginFailed(Reason.UNKNOWN, "The time of this JSON Web Token has not come yet.")
    if ends - (now if made is None else made) > MOST_LIFETIME + LEEWAY:
        raise LoginFailed(
            Reason.UNKNOWN, "This JSON Web Token lives longer than a day; ask for a shorter one."
        )


def _moment(claims: dict[str, Any], name: str) -> float | None:
    given = claims.get(name)
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise LoginFailed(Reason.UNKNOWN, f"`{name}` of this JSON Web Token is no moment.")
    return float(given)


def _mapped(issuer: Issuer, claims: dict[str, Any]) -> Verified:
    name = f"{claims['iss']} {claims.get('sub', '')}".strip()
    found = [one for one in issuer.map if _fits(one, claims)]
    if not found:
        raise Unmapped(f"Nothing is allowed for iss {claims['iss']!r}, sub {claims.get('sub')!r}.")
    return Verified(
        name,
        tuple(dict.fromkeys(policy for one in found for policy in one.policies)),
        tuple(dict.fromkeys(rule for one in found for rule in one.rules)),
        float(claims["exp"]) + LEEWAY,
    )


def _fits(wanted: Claims, claims: dict[str, Any]) -> bool:
    return all(_has(claims.get(name), value) for name, value in wanted.claims.items())


def _has(given: object, value: str) -> bool:
    return value in given if isinstance(given, list) else given == value
