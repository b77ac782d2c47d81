"""When a certificate ends, read from its bytes."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from keyrack.server.certificate_end import certificate_end

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing")


def made(directory: Path, *options: str) -> bytes:
    certificate, key = directory / "made.pem", directory / "made.key"
    command = ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=x", "-keyout"]
    subprocess.run(
        [*command, str(key), "-out", str(certificate), *options], check=True, capture_output=True
    )
    return certificate.read_bytes()


@pytest.mark.parametrize("days", ["1", "800", "20000"])
@pytest.mark.parametrize("kind", ["rsa:2048", "ec"])
def test_it_is_what_openssl_says(days: str, kind: str, tmp_path: Path) -> None:
    curve = ("-pkeyopt", "ec_paramgen_curve:prime256v1") if kind == "ec" else ()
    pem = made(tmp_path, "-newkey", kind, *curve, "-days", days)
    command = ["openssl", "x509", "-noout", "-enddate"]
    said = subprocess.run(command, input=pem, capture_output=True, check=True).stdout.decode()
    assert certificate_end(pem) == ssl.cert_time_to_seconds(said.strip().partition("=")[2])


def test_the_first_of_a_chain_counts(tmp_path: Path) -> None:
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    first, second = (made(tmp_path, *curve, "-days", days) for days in ("3", "30"))
    assert certificate_end(b"a comment\n" + first + second) == certificate_end(first)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nMIL/////\n-----END CERTIFICATE-----\n",
    ],
)
def test_of_what_is_none_nothing_is_known(damaged: bytes) -> None:
    assert certificate_end(damaged) is None
