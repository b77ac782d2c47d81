"""HTTPS: the certificate that a service shows, and how another one takes its place.

The supervisor reads both files, makes sure that they belong together, and keeps the last pair that
did in memory that its workers share. So a worker that is replaced shows what the others show, and
files that are just being written, or are wrong, change nothing. The files are looked at once a
second and read again when they have changed and then stayed the same for a second, or at SIGHUP.
New connections are shown the new certificate; those that are open go on.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from keyrack.server.certificate_end import certificate_end
from keyrack.server.logs import rfc3339

if TYPE_CHECKING:
    from keyrack.settings import Settings
    from keyrack.shared.counters import Counters

_LOOK_SECONDS: Final = 1.0
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2, those that authenticate what they encrypt; TLS 1.3 has no others."""
_LEAST: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_SENTENCE: Final = b"This port speaks HTTPS. Use https:// instead of http://.\n"
_PLAIN_HTTP: Final = (
    b"HTTP/1.1 400 Bad Request\r\nServer: keyrack\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Cache-Control: no-store\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
) % (len(_SENTENCE), _SENTENCE)

_Signature: TypeAlias = "tuple[tuple[int, ...] | None, ...]"

_log = logging.getLogger("keyrack.tls")


class TlsError(Exception):
    """Raised when a certificate and a key cannot be used. One sentence that names both files."""


class Certificates:
    """The pair of files that a service reads its certificate from, and the last good pair.

    Two memory files hold pairs in turn; a number in the shared counters says which one counts, so
    that a worker never reads one that is being written.
    """

    def __init__(
        self,
        certificate: str,
        key: str,
        least: str,
        client_ca: str | None = None,
        *,
        client_required: bool = False,
    ) -> None:
        """Read the pair for the first time. Raises `TlsError`."""
        self._client_ca = client_ca
        self._client_required = client_required
        self._certificate = certificate
        self._key = key
        self._least = _LEAST[least]
        self._looked = time.monotonic()
        self._taken = self._seen = self._signature()
        """What the files were like when they were taken, and at the last look."""
        self._refused: _Signature | None = None
        self._memory = [os.memfd_create(f"certificate-{number}") for number in range(2)]
        self._pair = self._read()
        self._keep(0)
        self.ends = certificate_end(self._pair) or 0.0
        """When the certificate in use ends, in seconds since 1970; 0 where that is not known."""
        try:
            self.context()
        except (ssl.SSLError, OSError) as error:
            raise TlsError(f"--tls-client-ca {client_ca} cannot be used: {error}") from None

    def look(self, counters: Counters) -> None:
        """Read the files again if they have changed. Call it often."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        seen = self._signature()
        is_settled, self._seen = seen == self._seen, seen
        if is_settled and seen not in (self._taken, self._refused):
            self.reload(counters)

    def reload(self, counters: Counters) -> None:
        """Read the files again; what cannot be used is refused with a line in the log."""
        signature = self._signature()
        try:
            pair = self._read()
        except TlsError as error:
            self._refused = signature
            _log.error(
                "%s The earlier one stays in use.", error, extra={"event": "certificate_refused"}
            )
            return
        self._taken, self._refused = signature, None
        if pair != self._pair:
            self._pair = pair
            self.ends = certificate_end(pair) or 0.0
            self._keep(counters.certificate + 1)
            counters.set_certificate(counters.certificate + 1, self.ends)
        _log.info(
            "the certificate was read again from %s",
            self._certificate,
            extra={"event": "certificate_read"},
        )
        self.complain_if_over()

    def publish(self, counters: Counters) -> None:
        """Tell the workers of the first certificate."""
        counters.set_certificate(counters.certificate, self.ends)
        self.complain_if_over()

    def complain_if_over(self) -> None:
        """Say that the certificate is over, where clients will say it of the service."""
        if 0 < self.ends < time.time():
            _log.warning(
                "the certificate of %s ended on %s: clients refuse it",
                self._certificate,
                rfc3339(self.ends),
                extra={"event": "certificate_over"},
            )

    def _signature(self) -> _Signature:
        """Return what tells a changed file from an unchanged one, links followed."""
        found: list[tuple[int, ...] | None] = []
        for path in (self._certificate, self._key):
            try:
                stat = os.stat(path)
            except OSError:
                found.append(None)
            else:
                found.append((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return tuple(found)

    def _read(self) -> bytes:
        """Return certificate and key as one text that OpenSSL takes. Raises `TlsError`."""
        pair = f"--tls-cert {self._certificate} and --tls-key {self._key}"
        try:
            texts = []
            for path in (self._certificate, self._key):
                with open(path, "rb") as file:
                    texts.append(file.read())
        except OSError as error:
            raise TlsError(f"{pair} cannot be read: {error.strerror}.") from None
        if b"ENCRYPTED" in texts[1]:
            raise TlsError(f"{pair} cannot be used: the key is encrypted.")
        if b"-----BEGIN CERTIFICATE-----" not in texts[0]:
            raise TlsError(f"{pair} cannot be used: there is no certificate in the first.")
        if b"PRIVATE KEY-----" not in texts[1]:
            raise TlsError(f"{pair} cannot be used: there is no private key in the second.")
        try:
            _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._certificate, self._key)
        except ssl.SSLError as error:
            raise TlsError(f"{pair} {_explained(error)}.") from None
        except (OSError, ValueError) as error:
            raise TlsError(f"{pair} cannot be used: {error}.") from None
        return b"\n".join(texts)

    def _keep(self, number: int) -> None:
        memory = self._memory[number % 2]
        os.ftruncate(memory, 0)
        os.pwrite(memory, self._pair, 0)

    # In a worker

    def context(self) -> ssl.SSLContext:
        """Return a context without a certificate yet."""
        context = _Context(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._least
        context.set_ciphers(_CIPHERS)
        context.set_alpn_protocols(["http/1.1"])
        if self._client_ca is not None:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED if self._client_required else ssl.CERT_OPTIONAL
        return context

    def put_into(self, context: ssl.SSLContext, counters: Counters) -> int:
        """Have a context show the last good certificate; return its number."""
        while True:
            number = counters.certificate
            _load(context, f"/proc/self/fd/{self._memory[number % 2]}", None)
            if counters.certificate == number:
                return number


class WorkerTls:
    """The TLS of one worker: its context, which shows the certificate that counts."""

    def __init__(self, certificates: Certificates, counters: Counters) -> None:
        self._certificates = certificates
        self._counters = counters
        self.context = certificates.context()
        self._number = certificates.put_into(self.context, counters)

    def look(self) -> None:
        """Show another certificate if there is one. Call when the supervisor has woken us."""
        if self._counters.certificate != self._number:
            self._number = self._certificates.put_into(self.context, self._counters)


def read_certificates(settings: Settings) -> Certificates | None:
    """Return what HTTPS needs, None for plain HTTP. Raises `TlsError`."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Certificates(
        settings.tls_cert,
        settings.tls_key,
        settings.tls_min,
        settings.tls_client_ca,
        client_required=settings.tls_client_required,
    )


def _load(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    # Without a password OpenSSL would ask for one on the terminal.
    context.load_cert_chain(certificate, key, password="")


def _explained(error: ssl.SSLError) -> str:
    if "MISMATCH" in (error.reason or ""):
        return "do not belong together: the key is another certificate's"
    return f"cannot be used: {error.reason or error}"


# Plain HTTP on a port for HTTPS


class _Object(ssl.SSLObject):
    """One connection, which answers a client that speaks plain HTTP with a sentence."""

    bios: tuple[ssl.MemoryBIO, ssl.MemoryBIO] | None = None
    """What comes and what goes, until the client has said something."""

    def do_handshake(self) -> None:
        """Go on with the handshake; a client that sends a letter first is speaking HTTP."""
        if self.bios is not None:
            incoming, outgoing = self.bios
            said = incoming.read()
            incoming.write(said)
            if said:
                self.bios = None
            if said[:1].isalpha():
                outgoing.write(_PLAIN_HTTP)
                incoming.read()
                # What goes out is sent before more is waited for; the next thing is the end.
                raise ssl.SSLWantReadError
        super().do_handshake()


class _Context(ssl.SSLContext):
    """Makes connections of the class above."""

    sslobject_class = _Object

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *more: Any, **named: Any
    ) -> _Object:
        """Return the TLS of a connection."""
        made = super().wrap_bio(incoming, outgoing, *more, **named)
        assert isinstance(made, _Object)
        made.bios = (incoming, outgoing)
        return made
