"""Stands in for the AWS provider of today, as far as `terraform test` with mocks needs one.

Terraform asks a mocked provider for nothing but its schema and whether a configuration fits it. The
schema is the file that PROVIDER_SCHEMA names, made of the bindings by `schema.py`; everything fits.
What Terraform itself checks by the schema (names, types, what is required) is checked for real.

The protocol is that of Terraform's plug-ins, version 5: gRPC over TLS on loopback, announced by one
line on standard output. Its messages are few and written by hand.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_NESTING = {"single": 1, "list": 2}


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _attribute(name: str, given: dict[str, Any]) -> bytes:
    flags = b"".join(
        _number(field, 1)
        for field, flag in ((4, "required"), (5, "optional"), (6, "computed"))
        if given[flag]
    )
    return _bytes(1, name) + _bytes(2, json.dumps(given["type"])) + flags


def _nested(name: str, given: dict[str, Any]) -> bytes:
    limits = _number(4, given["least"]) + _number(5, given["most"])
    shape = _number(3, _NESTING[given["nesting"]])
    return _bytes(1, name) + _bytes(2, _block(given["block"])) + shape + limits


def _block(given: dict[str, Any]) -> bytes:
    parts = [_bytes(2, _attribute(*item)) for item in sorted(given["attributes"].items())]
    parts += [_bytes(3, _nested(*item)) for item in sorted(given["blocks"].items())]
    return b"".join(parts)


def _schema(given: dict[str, Any]) -> bytes:
    return _bytes(2, _block(given))


def schemas(given: dict[str, Any]) -> bytes:
    """The answer to GetSchema: of the provider, its resources and its data sources."""
    answer = _bytes(1, _schema(given["provider"]))
    for field, kind in ((2, "resource"), (3, "data")):
        for name, schema in given[kind].items():
            answer += _bytes(field, _bytes(1, name) + _bytes(2, _schema(schema)))
    return answer


class _Service(grpc.GenericRpcHandler):
    """Answers GetSchema with the schemas, and every other question with an empty message."""

    def __init__(self, answer: bytes, ended: threading.Event) -> None:
        self._answer = answer
        self._ended = ended

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        if name == "Shutdown":
            self._ended.set()
        if details.method.startswith("/plugin.") and name != "Shutdown":
            return None  # streams that Terraform can do without
        answer = self._answer if name == "GetSchema" else b""
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: answer)


def _certificate() -> tuple[bytes, bytes, bytes]:
    """A key and a certificate for this one run, both as PEM, and the certificate as DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, pkcs8, plain)
    encoded = made.public_bytes(serialization.Encoding.PEM)
    return pem, encoded, made.public_bytes(serialization.Encoding.DER)


def main() -> None:
    """Serve until Terraform says that it has ended."""
    answer = schemas(json.loads(Path(os.environ["PROVIDER_SCHEMA"]).read_text()))
    key, certificate, der = _certificate()
    ended = threading.Event()
    server = grpc.server(
        ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", 64 << 20)]
    )
    server.add_generic_rpc_handlers((_Service(answer, ended),))
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    announced = base64.b64encode(der).decode().rstrip("=")
    sys.stdout.write(f"1|5|tcp|127.0.0.1:{port}|grpc|{announced}\n")
    sys.stdout.flush()
    ended.wait()
    server.stop(grace=1).wait()


if __name__ == "__main__":
    main()
