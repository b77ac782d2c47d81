"""JSON Web Tokens: which ones count, and a collection of those that must not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from keyrack.access.jwt import Verifier
from keyrack.access.model import AccessFile, Claims, Issuer, Policy
from keyrack.access.table import LoginFailed, Reason, Table, Unmapped

NOW = float(int(time.time()))
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
ISSUER = "https://kubernetes.default.svc"
SUBJECT = "system:serviceaccount:shop:cart"


def jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, kid: str) -> dict[str, Any]:
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else None
    made = (kind or jwt.algorithms.ECAlgorithm).to_jwk(key.public_key(), as_dict=True)  # type: ignore[arg-type,attr-defined]  # one for each
    return {**made, "kid": kid, "use": "sig"}


JWKS = json.dumps({"keys": [jwk(KEY, "one"), jwk(CURVE, "curve")]})
TRUSTED = Issuer(
    ISSUER,
    "keyrack",
    "jwks.json",
    ("RS256", "ES256"),
    (
        Claims({"sub": SUBJECT}, ("app",)),
        Claims({"groups": "system:serviceaccounts"}, rules=("read keys:shared/*",)),
    ),
    keys=JWKS,
)


def claims(**more: Any) -> dict[str, Any]:
    made = {
        "iss": ISSUER,
        "aud": ["keyrack"],
        "sub": SUBJECT,
        "iat": NOW,
        "exp": NOW + 3600,
        **more,
    }
    return {name: value for name, value in made.items() if value is not None}


def signed(key: Any = KEY, algorithm: str = "RS256", kid: str | None = "one", **more: Any) -> str:
    return jwt.encode(claims(**more), key, algorithm, {} if kid is None else {"kid": kid})


def table(issuer: Issuer = TRUSTED, verifier: Verifier | None = None) -> Table:
    policies = {"app": Policy(("all keys:app/*",))}
    return Table(AccessFile(policies=policies, issuers=(issuer,)), verify=verifier or Verifier())


def reason(text: str, issuer: Issuer = TRUSTED, now: float = NOW) -> Reason:
    with pytest.raises(LoginFailed) as caught:
        table(issuer).authenticate(b"Bearer " + text.encode(), now)
    return caught.value.reason


def test_a_token_of_a_trusted_issuer_stands_for_what_its_claims_are_mapped_to() -> None:
    grant = table().authenticate(b"Bearer " + signed().encode(), NOW)
    assert grant.identity.source == "jwt"
    assert grant.identity.name == f"{ISSUER} {SUBJECT}"
    assert grant.rights.rules.lines() == ["all keys:app/*"]
    assert grant.expires == NOW + 3600 + 30


def test_another_kind_of_key_is_chosen_by_its_id() -> None:
    text = signed(CURVE, "ES256", "curve")
    assert table().authenticate(b"Bearer " + text.encode(), NOW)


def test_all_maps_that_fit_are_merged() -> None:
    text = signed(groups=["a", "system:serviceaccounts"])
    grant = table().authenticate(b"Bearer " + text.encode(), NOW)
    assert sorted(grant.rights.rules.lines()) == ["all keys:app/*", "read keys:shared/*"]


def test_who_is_mapped_to_nothing_is_told_by_name() -> None:
    with pytest.raises(Unmapped, match="sub 'somebody'"):
        table().authenticate(b"Bearer " + signed(sub="somebody").encode(), NOW)


def test_a_key_that_is_not_known_is_asked_for() -> None:
    missing: list[Issuer] = []
    with pytest.raises(LoginFailed):
        table(verifier=Verifier(missing.append)).authenticate(
            b"Bearer " + signed(kid="two").encode(), NOW
        )
    assert missing == [TRUSTED]


def test_a_set_of_one_key_needs_no_key_id() -> None:
    single = Issuer(
        ISSUER, "keyrack", "", ("RS256",), TRUSTED.map, keys=json.dumps({"keys": [jwk(KEY, "one")]})
    )
    assert table(single).authenticate(b"Bearer " + signed(kid=None).encode(), NOW)
    assert reason(signed(kid=None)) is Reason.UNKNOWN


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def with_shared_secret(header: dict[str, Any]) -> str:
    """Return a token signed with HMAC, the issuer's public key being taken for the secret."""
    public = KEY.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    body = f"{part(header)}.{part(claims())}"
    mac = hmac.digest(public, body.encode(), hashlib.sha256)
    return f"{body}.{part(mac)}"


HOSTILE = {
    "no signature": f"{part({'alg': 'none'})}.{part(claims())}.",
    "no signature, with a key id": f"{part({'alg': 'none', 'kid': 'one'})}.{part(claims())}.",
    "None in another case": f"{part({'alg': 'NoNe', 'kid': 'one'})}.{part(claims())}.",
    "the public key as a shared secret": with_shared_secret({"alg": "HS256", "kid": "one"}),
    "HMAC that says it is RSA": with_shared_secret({"alg": "RS256", "kid": "one"}),
    "an algorithm that is not allowed": signed(algorithm="RS512"),
    "a key of somebody else": signed(OTHER),
    "a key of somebody else, in its header": jwt.encode(
        claims(), OTHER, "RS256", {"kid": "two", "jwk": jwk(OTHER, "two")}
    ),
    "a place for keys in its header": jwt.encode(
        claims(), OTHER, "RS256", {"kid": "two", "jku": "https://evil.example/jwks"}
    ),
    "a key of another kind": signed(kid="curve"),
    "an unknown key": signed(kid="two"),
    "no key id, of several keys": signed(kid=None),
    "another audience": signed(aud="other"),
    "no audience": signed(aud=None),
    "an empty audience": signed(aud=[]),
    "another issuer": signed(iss="https://evil.example"),
    "no issuer": signed(iss=None),
    "a list of issuers": f"{part({'alg': 'RS256', 'kid': 'one'})}.{part(claims(iss=[ISSUER]))}.AA",
    "no end": signed(exp=None),
    "an end in nanoseconds": signed(exp=int(NOW + 3600) * 10**9),
    "an end in milliseconds": signed(exp=int(NOW + 3600) * 1000),
    "an end that never comes": signed(exp=1e300),
    "an end as text": signed(exp=str(int(NOW + 3600))),
    "an end that is true": signed(exp=True),
    "a life of a week": signed(exp=NOW + 7 * 86400),
    "a long life that says nothing of its beginning": signed(iat=None, exp=NOW + 7 * 86400),
    "made tomorrow": signed(iat=NOW + 80000, exp=NOW + 86400),
    "not before tomorrow": signed(nbf=NOW + 31),
    "a changed body": ".".join(
        (signed().split(".")[0], part(claims(sub="admin")), signed().split(".")[2])
    ),
    "no signature at all": signed().rpartition(".")[0] + ".",
    "a signature that was cut off": signed()[:-20],
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_tokens_do_not_count(text: str) -> None:
    assert reason(text) is not Reason.EXPIRED


@pytest.mark.parametrize(
    "text",
    ["eyJ..", "eyJ.eyJ.eyJ", f"{part({'alg': 'RS256'})}.{part(b'[]')}.AA",
     "eyJ" + "A" * 9000 + "..",
     f"{part({'alg': 'RS256', 'kid': 7})}.{part(claims())}.AA",
     f"{part({'alg': 7})}.{part(claims())}.AA",
     f"{part(b'{' * 3000)}.{part(claims())}.AA"],
    ids=list("1234567"),
)  # fmt: skip
def test_what_is_no_token_does_not_count(text: str) -> None:
    assert reason(text) in (Reason.MALFORMED, Reason.UNKNOWN)


def test_clocks_may_differ_by_thirty_seconds() -> None:
    late = signed(iat=NOW - 3600, exp=NOW - 29)
    early = signed(iat=NOW + 29, nbf=NOW + 29)
    for text in (late, early):
        assert table().authenticate(b"Bearer " + text.encode(), NOW)
    assert reason(signed(iat=NOW - 3600, exp=NOW - 30)) is Reason.EXPIRED


def test_without_the_issuer_s_keys_nobody_gets_in() -> None:
    for keys in ("", '{"keys":[]}', '{"keys":[{"kty":"oct","k":"AAAA","kid":"one"}]}'):
        keyless = Issuer(ISSUER, "keyrack", "", ("RS256",), TRUSTED.map, keys=keys)
        assert reason(signed(), keyless) is Reason.UNKNOWN
