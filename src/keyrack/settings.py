"""The settings of `keyrack serve`: one table, and everything that is made from it.

Each field of `Settings` is a row: its kind (how it is read and what is expected), default, group
and help. From the rows come the flags of the command line, the environment's variables, the keys
of the file, the help and the page `docs/settings.md` (`python -m keyrack.settings` prints it).
A flag goes before a variable, a variable before the file, the file before the default.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import tomllib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from keyrack.shared.units import seconds_of, shown_seconds, shown_size, size_of
from keyrack.system import effective_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PREFIX: Final = "KEYRACK_"
MAX_WORKERS: Final = 256
_MIB: Final = 1 << 20
_DAY: Final = 86400
_OTHER_VARIABLES: Final = frozenset(
    ("KEYRACK_CONFIG", "KEYRACK_CONTEXT", "KEYRACK_TOKEN_FILE", "KEYRACK_URL")
)


class SettingsError(Exception):
    """Raised at start when a setting cannot be used. One sentence: where, what, what instead."""


# Kinds: how a text (flag, variable) or a TOML value becomes a setting


class Kind(NamedTuple):
    """A kind of setting. `parse` raises `ValueError` for whatever is not what was expected."""

    expected: str
    parse: Callable[[object], Any]
    show: Callable[[Any], str] = str
    is_switch: bool = False


def _need(condition: bool) -> None:
    if not condition:
        raise ValueError


def _text(expected: str, pattern: str = r"[^\0]+") -> Kind:
    def parse(given: object) -> str:
        _need(isinstance(given, str) and re.fullmatch(pattern, given) is not None)
        return str(given)

    return Kind(expected, parse)


def _number(given: object, pattern: str) -> float:
    """Return a number. Only plain ASCII digits count: no `1_0`, no `1e3`, no NaN."""
    if isinstance(given, str):
        _need(re.fullmatch(pattern, given) is not None)
        return float(given) if "." in given else int(given)
    _need(isinstance(given, int | float) and not isinstance(given, bool))
    return given  # type: ignore[return-value]  # the line above has made sure


def _whole(low: int, high: int) -> Kind:
    def parse(given: object) -> int:
        number = _number(given, r"[0-9]{1,18}")
        _need(isinstance(number, int) and low <= number <= high)
        return int(number)

    return Kind(f"a whole number from {low} to {high}", parse)


def _share() -> Kind:
    def parse(given: object) -> float:
        number = _number(given, r"[01](\.[0-9]{1,9})?")
        _need(0 <= number <= 1)
        return float(number)

    return Kind("a share from 0 to 1", parse, lambda share: f"{share:g}")


def _seconds(low: float, high: float) -> Kind:
    def parse(given: object) -> float:
        number = seconds_of(given) if isinstance(given, str) else _number(given, "")
        _need(low <= number <= high)
        return float(number)

    return Kind(
        f"a time from {shown_seconds(low)} to {shown_seconds(high)}, in seconds or like "
        "90s, 5m, 1h",
        parse,
        shown_seconds,
    )


def _size(low: int, high: int = 1 << 50, *, off: bool = False) -> Kind:
    """Return the kind of a size in bytes; with `off`, 0 is one as well."""

    def parse(given: object) -> int:
        size = size_of(given if isinstance(given, str) else str(_number(given, "")))
        _need(low <= size <= high or (off and size == 0))
        return size

    expected = f"a size of at least {shown_size(low)}, in bytes or like 512k, 64m, 1.5g"
    return Kind(f"0, or {expected}" if off else expected, parse, shown_size)


def _one_of(*choices: str) -> Kind:
    def parse(given: object) -> str:
        _need(given in choices)
        return str(given)

    return Kind(" or ".join((", ".join(choices[:-1]), choices[-1])), parse)


_SWITCH: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _switch() -> Kind:
    def parse(given: object) -> bool:
        found = _SWITCH.get(str(given).lower())
        if found is None:
            raise ValueError
        return found

    return Kind("true or false (1, yes, 0, no)", parse, lambda on: "on" if on else "off", True)


_HOST_PATTERN: Final = r"\*|\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"


def _hosts() -> Kind:
    def parse(given: object) -> tuple[str, ...]:
        parts = given.split(",") if isinstance(given, str) else given
        if not isinstance(parts, list):
            raise ValueError
        names = tuple(part.strip() if isinstance(part, str) else "" for part in parts)
        _need(all(re.fullmatch(_HOST_PATTERN, name) for name in names))
        return names

    return Kind(
        "a list of host names, without scheme or port, like keyrack.example.org,.internal",
        parse,
        ",".join,
    )


def _some_of(*choices: str) -> Kind:
    def parse(given: object) -> tuple[str, ...]:
        parts = given.split(",") if isinstance(given, str) else given
        if not isinstance(parts, list):
            raise ValueError
        names = tuple(part.strip() if isinstance(part, str) else "" for part in parts)
        _need(all(name in choices for name in names))
        return tuple(dict.fromkeys(names))

    return Kind(f"a list of these: {', '.join(choices)}", parse, ",".join)


_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://((?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]))(:[0-9]{1,5})?"
).fullmatch
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def _origin(text: str) -> str:
    """Return an origin as browsers write it."""
    if text == "*":
        return text
    found = _ORIGIN(text.lower())
    if found is None:
        raise ValueError
    scheme, host, port = found.groups()
    return f"{scheme}://{host}{port if port and port != _DEFAULT_PORTS.get(scheme) else ''}"


def _origins() -> Kind:
    def parse(given: object) -> tuple[str, ...]:
        parts = given.split(",") if isinstance(given, str) else given
        if not isinstance(parts, list):
            raise ValueError
        return tuple(_origin(part.strip() if isinstance(part, str) else "") for part in parts)

    return Kind(
        "a list of origins, with a scheme and without a path, like https://app.example.org",
        parse,
        ",".join,
    )


def _address() -> Kind:
    def parse(given: object) -> str:
        _need(isinstance(given, str) and re.fullmatch(r"[A-Za-z0-9.:%_\[\]-]+", given) is not None)
        return str(given).strip("[]")

    return Kind("a host name or an IP address, without scheme or port", parse)


def _token() -> Kind:
    def parse(given: object) -> str:
        from keyrack.access import tokens  # most services do without

        _need(isinstance(given, str))
        tokens.id_of(str(given))
        return str(given)

    return Kind("a whole token, as `keyrack token new` prints it", parse, lambda _: "***")


def _readable_file() -> Kind:
    def parse(given: object) -> str:
        _need(isinstance(given, str) and os.path.isfile(given) and os.access(given, os.R_OK))
        return str(given)

    return Kind("a file that can be read", parse)


def _engine() -> Kind:
    def parse(given: object) -> str:
        if not isinstance(given, str):
            raise ValueError
        if given != "embedded":
            from keyrack.engines.valkey import address  # most services do without

            address.parse(given)
        return given

    return Kind(
        "embedded, or an address like valkey://host:6379/prefix, valkeys://host (TLS), "
        "valkey-cluster://host1,host2 or valkey-sentinel://host1,host2/?master=name",
        parse,
    )


# The table


class Row(NamedTuple):
    """What is known about a setting besides its field's name and type."""

    kind: Kind
    group: str
    metavar: str
    help: str
    unset: str = ""
    """What happens when the default is no fixed value."""


def _row(kind: Kind, default: Any, *row: str, **more: Any) -> Any:
    metadata = {"row": Row(kind, *row, **more)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def _default_workers() -> int:
    return min(effective_cpus(), MAX_WORKERS)


_NETWORK: Final = "Network"
_ACCESS: Final = "Access"
_PROCESSES: Final = "Processes"
_STORE: Final = "Store"
_ENGINE: Final = "Engine"
_LIMITS: Final = "Limits"
_TIMES: Final = "Time limits"
_LOGS: Final = "Logs"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a service. Sizes are in bytes, times in seconds."""

    host: str = _row(
        _address(), "127.0.0.1", _NETWORK, "ADDRESS",
        "Listen on this address or name; 0.0.0.0 is all of IPv4, :: is all of IPv6 and IPv4.",
    )  # fmt: skip
    port: int = _row(
        _whole(0, 65535), 8088, _NETWORK, "PORT",
        "Listen on this TCP port; 0 takes any that is free.",
    )  # fmt: skip
    uds: str | None = _row(
        _text("a path"), None, _NETWORK, "PATH",
        "Listen on a Unix socket at this path, and on no TCP port. Its mode is 0660.",
        unset="TCP",
    )  # fmt: skip
    allowed_hosts: tuple[str, ...] = _row(
        _hosts(), (), _NETWORK, "NAMES",
        "Further names by which this server may be called, with commas between; a name that begins "
        "with a dot stands for all names below it. With it, or on loopback, all clients must use a "
        "known name; elsewhere only browsers.",
        unset="none",
    )  # fmt: skip
    cors_origins: tuple[str, ...] = _row(
        _origins(), (), _NETWORK, "ORIGINS",
        "Let pages of these origins read and write, with commas between; pages of all other sites "
        "stay shut out. `*` stands for every site, and does not go together with access control.",
        unset="none",
    )  # fmt: skip
    compat: tuple[str, ...] = _row(
        _some_of("upstash"), (), _NETWORK, "NAMES",
        "Speak these APIs of others as well, with commas between. upstash: Upstash's REST API for "
        "Redis, below /upstash/, for the commands on strings and keys.",
        unset="none",
    )  # fmt: skip
    tls_cert: str | None = _row(
        _readable_file(), None, _NETWORK, "FILE",
        "Serve HTTPS with this certificate chain (PEM); needs the key as well.",
        unset="plain HTTP",
    )  # fmt: skip
    tls_key: str | None = _row(
        _readable_file(), None, _NETWORK, "FILE",
        "The private key (PEM, not encrypted) of the certificate.",
        unset="plain HTTP",
    )  # fmt: skip
    tls_min: str = _row(
        _one_of("1.2", "1.3"), "1.2", _NETWORK, "VERSION",
        "The oldest version of TLS that is spoken.",
    )  # fmt: skip
    tls_client_ca: str | None = _row(
        _readable_file(), None, _NETWORK, "FILE",
        "Ask clients for a certificate that goes back to one of these (PEM). Whom it lets in is "
        "said by the file of --auth; needs HTTPS.",
        unset="clients are not asked",
    )  # fmt: skip
    tls_client_required: bool = _row(
        _switch(), False, _NETWORK, "",
        "Let nobody connect without such a certificate.",
    )  # fmt: skip
    auth: str | None = _row(
        _text("`none` or a path"), None, _ACCESS, "FILE",
        "Let in those that this file names (see docs/security.md); `none` lets everybody do "
        "everything. The file is read again when it changes.",
        unset="everybody, on a loopback address or a Unix socket; elsewhere it has to be said",
    )  # fmt: skip
    token: str | None = _row(
        _token(), None, _ACCESS, "TOKEN",
        "Let in whoever has this token, and let them do everything; `keyrack token new` prints "
        "one. A command line can be read by others on the machine: use the variable or a file.",
        unset="none",
    )  # fmt: skip
    token_file: str | None = _row(
        _text("a path"), None, _ACCESS, "FILE",
        "A file that holds such a token. It is read again when it changes.",
        unset="none",
    )  # fmt: skip
    audit: str = _row(
        _one_of("none", "admin", "denied", "writes", "all"), "denied", _ACCESS, "LEVEL",
        "Where access is controlled, log who administers; with `denied` also who was refused what, "
        "and by which rule; with `writes` each write, with `all` each request. The last two cost "
        "the most frequent requests time.",
    )  # fmt: skip
    audit_log: str | None = _row(
        _text("a path"), None, _ACCESS, "FILE",
        "Append the audit trail to this file instead of the log. It may be renamed at any time: "
        "within a second another one is written.",
        unset="the log",
    )  # fmt: skip
    workers: int = _row(
        _whole(1, MAX_WORKERS), _default_workers, _PROCESSES, "NUMBER",
        "Serve with so many processes; all of them share one store.",
        unset="one for each CPU that this process may use",
    )  # fmt: skip
    worker_timeout: float = _row(
        _seconds(0, 3600), 10.0, _PROCESSES, "SECONDS",
        "Kill and replace a worker that lives but gives no sign of life for so long; 0 is never.",
    )  # fmt: skip
    takeover: bool = _row(
        _switch(), False, _PROCESSES, "",
        "Take sockets and store over from the service that runs with this address and store, which "
        "then ends, without a request failing. Where none runs, start as usual.",
    )  # fmt: skip
    takeover_timeout: float = _row(
        _seconds(0, _DAY), 120.0, _PROCESSES, "SECONDS",
        "How long this service, once another has taken over, keeps connections whose clients send "
        "nothing; each is closed with its next answer.",
    )  # fmt: skip
    store: str | None = _row(
        _text("a path"), None, _STORE, "DIRECTORY",
        "Keep the store in this directory, where it survives a restart of the service; a "
        "directory in memory (tmpfs) is the fast choice.",
        unset="a directory in memory that is removed at the end",
    )  # fmt: skip
    memory: int | None = _row(
        _size(8 * _MIB), None, _STORE, "SIZE",
        "The most that the store may take, bookkeeping included.",
        unset="half of what the machine or container allows, or what the directory can hold",
    )  # fmt: skip
    when_full: str = _row(
        _one_of("reject", "evict"), "reject", _STORE, "POLICY",
        "When the store is full: answer 507 to writes that need room, or evict keys that were not "
        "used lately.",
    )  # fmt: skip
    events: int = _row(
        _whole(1, 100_000_000), 100_000, _STORE, "NUMBER",
        "How many of the last changes the store remembers, for watches and histories.",
    )  # fmt: skip
    durability: str = _row(
        _one_of("none", "snapshot", "commit"), "none", _STORE, "MODE",
        "What is kept on a disk: nothing; a snapshot now and then and at the end; or every write, "
        "before it is answered.",
    )  # fmt: skip
    data_dir: str | None = _row(
        _text("a path"), None, _STORE, "DIRECTORY",
        "Where it is kept: a directory on a disk, of this service alone.",
        unset="none; needed unless the durability is none",
    )  # fmt: skip
    snapshot_interval: float = _row(
        _seconds(1, _DAY), 60.0, _STORE, "SECONDS",
        "Take a snapshot every so often, if something has changed.",
    )  # fmt: skip
    snapshot_keep: int = _row(
        _whole(1, 1000), 2, _STORE, "NUMBER",
        "Keep so many snapshots: what the next start has to fall back on when one is damaged.",
    )  # fmt: skip
    engine: str = _row(
        _engine(), "embedded", _ENGINE, "ADDRESS",
        "Keep the store in this machine's memory, or in Valkey: one server, a cluster, or the one "
        "that Sentinel names. `valkeys` instead of `valkey` means TLS.",
    )  # fmt: skip
    engine_password: str | None = _row(
        _text("a password"), None, _ENGINE, "PASSWORD",
        "The password for Valkey, instead of one in the address. A command line can be read by "
        "others on the machine: use the variable or a file.",
        unset="what the address says",
    )  # fmt: skip
    engine_password_file: str | None = _row(
        _readable_file(), None, _ENGINE, "FILE",
        "A file that holds the password for Valkey.",
        unset="what the address says",
    )  # fmt: skip
    engine_ca: str | None = _row(
        _readable_file(), None, _ENGINE, "FILE",
        "The certificates (PEM) that those of Valkey's servers must go back to.",
        unset="those that the system trusts",
    )  # fmt: skip
    engine_cert: str | None = _row(
        _readable_file(), None, _ENGINE, "FILE",
        "The certificate chain (PEM) to show to Valkey; needs the key as well.",
        unset="none",
    )  # fmt: skip
    engine_key: str | None = _row(
        _readable_file(), None, _ENGINE, "FILE",
        "The private key (PEM, not encrypted) of that certificate.",
        unset="none",
    )  # fmt: skip
    engine_timeout: float = _row(
        _seconds(0.05, 60), 2.0, _ENGINE, "SECONDS",
        "How long Valkey may take to answer before a request gets 503.",
    )  # fmt: skip
    valkey_wait: int = _row(
        _whole(0, 16), 0, _ENGINE, "NUMBER",
        "Acknowledge a write only when so many replicas have it, too; otherwise it gets 503.",
    )  # fmt: skip
    valkey_may_evict: bool = _row(
        _switch(), False, _ENGINE, "",
        "Use a Valkey that removes keys of its own accord when it is full: keys, locks and "
        "remembered answers go without an event.",
    )  # fmt: skip
    max_connections: int | None = _row(
        _whole(1, 10_000_000), None, _LIMITS, "NUMBER",
        "How many connections the service holds; one more is answered 503 and closed.",
        unset="what the limit on open files allows each worker",
    )  # fmt: skip
    max_value: int = _row(
        _size(1), _MIB, _LIMITS, "SIZE",
        "The longest value that is accepted.",
    )  # fmt: skip
    max_body: int = _row(
        _size(1), 8 * _MIB, _LIMITS, "SIZE",
        "The longest body of a request that is accepted; at least as much as a value may have.",
        unset="8m, or the longest value if that is more",
    )  # fmt: skip
    client_memory: int | None = _row(
        _size(8 * _MIB), None, _LIMITS, "SIZE",
        "The most that the service holds for its clients: bodies that are arriving, answers that "
        "are not taken. Beyond it requests are answered 503 and clients that take nothing are cut.",
        unset="an eighth of what the store leaves of the machine or container, from 16m to 512m",
    )  # fmt: skip
    keep_alive: float = _row(
        _seconds(1, _DAY), 90.0, _TIMES, "SECONDS",
        "Close a connection that has been idle for so long. Behind a proxy: longer than the "
        "proxy keeps its idle connections.",
    )  # fmt: skip
    head_timeout: float = _row(
        _seconds(1, _DAY), 10.0, _TIMES, "SECONDS",
        "How long the head of a request may take to arrive.",
    )  # fmt: skip
    body_timeout: float = _row(
        _seconds(1, _DAY), 60.0, _TIMES, "SECONDS",
        "How long the body of a request may take to arrive.",
    )  # fmt: skip
    send_timeout: float = _row(
        _seconds(1, _DAY), 60.0, _TIMES, "SECONDS",
        "How long a client may leave its answer unread.",
    )  # fmt: skip
    max_wait: float = _row(
        _seconds(0, _DAY), 300.0, _TIMES, "SECONDS",
        "How long a request may wait for a key or a lock (`Prefer: wait=`); more is shortened.",
    )  # fmt: skip
    idempotency_ttl: float = _row(
        _seconds(1, 7 * _DAY), 600.0, _TIMES, "SECONDS",
        "How long the outcome of a request with an Idempotency-Key is remembered.",
    )  # fmt: skip
    undo_default: float = _row(
        _seconds(0, 7 * _DAY), 0.0, _TIMES, "SECONDS",
        "For how long a deletion can be undone that does not say so itself (`undo=`); 0 is not at "
        "all. What was deleted takes memory for so long, and goes first when that is short.",
    )  # fmt: skip
    shutdown_timeout: float = _row(
        _seconds(1, 3600), 8.0, _TIMES, "SECONDS",
        "How long requests may take to finish once the service was told to end.",
    )  # fmt: skip
    drain_delay: float = _row(
        _seconds(0, 3600), 0.0, _TIMES, "SECONDS",
        "How long to go on serving, with /readyz failing, once the service was told to end: what "
        "a load balancer needs to notice.",
    )  # fmt: skip
    log_level: str = _row(
        _one_of("debug", "info", "warning", "error"), "info", _LOGS, "LEVEL",
        "Log what is at least as grave as this.",
    )  # fmt: skip
    access_log: bool = _row(
        _switch(), False, _LOGS, "",
        "Log every request.",
    )  # fmt: skip
    slow: float = _row(
        _seconds(0, 3600), 0.01, _LOGS, "SECONDS",
        "Remember requests that take longer, for GET /v1/slow; 0 is none. It costs the others "
        "nothing.",
    )  # fmt: skip
    slow_bytes: int = _row(
        _size(64 << 10, off=True), _MIB, _LOGS, "SIZE",  # smaller answers are not looked at
        "Remember requests whose answer is longer, there too; 0 is none.",
    )  # fmt: skip
    traces: str | None = _row(
        _text("an address like http://localhost:4318", r"https?://[^\s/]+(/\S*)?"),
        None, _LOGS, "URL",
        "Send spans of requests to this OpenTelemetry collector, by OTLP over HTTP. Requests whose "
        "senders record their trace (`traceparent`) are recorded.",
        unset="none",
    )  # fmt: skip
    trace_share: float = _row(
        _share(), 0.01, _LOGS, "SHARE",
        "With --traces: record this share of the requests that belong to no trace.",
    )  # fmt: skip
    trace_keys: bool = _row(
        _switch(), False, _LOGS, "",
        "With --traces: show the paths that were asked for, keys included, and not their patterns.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Make sure that tests and programs cannot make what `load` would refuse."""
        if self.max_body < self.max_value:
            raise SettingsError("max_body must be at least max_value")
        if (self.durability == "none") != (self.data_dir is None):
            raise SettingsError("durability and data_dir go together")
        if "*" in self.cors_origins and self.controls_access:
            raise SettingsError(
                "--cors-origins '*' lets in the pages of every site, which does not go together "
                "with access control. Name the origins, like https://app.example.org."
            )

        if self.audit_log is not None and not self.controls_access:
            raise SettingsError(
                "--audit-log is of no use where everybody may do everything: there is an audit "
                "trail with --auth FILE, KEYRACK_TOKEN or --token-file."
            )

    @property
    def controls_access(self) -> bool:
        """Whether it matters who asks. A token or a file counts more than `none`."""
        return not (self.auth in (None, "none") and self.token is None and self.token_file is None)

    @property
    def is_open_to_network(self) -> bool:
        """Whether everybody may do everything, and not only from this machine."""
        return not self.controls_access and self.uds is None and not _is_loopback(self.host)

    @property
    def auth_file(self) -> str | None:
        """The file that names who is let in."""
        return None if self.auth == "none" else self.auth


ROWS: Final[Mapping[str, Row]] = {
    field.name: field.metadata["row"] for field in dataclasses.fields(Settings)
}
_DEFAULTS: Final = {field.name: field.default for field in dataclasses.fields(Settings)}


def flag(name: str) -> str:
    """Return the flag of a setting."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """Return the environment's variable of a setting."""
    return PREFIX + name.upper()


# Reading


class _Given(NamedTuple):
    """A value that was given, and where, as the subject of a sentence: `--port '0x1f'`."""

    where: str
    value: object


def _told(name: str, value: object) -> str:
    """Return a value as messages may show it: without a secret."""
    if name in ("engine_password", "token"):
        return "'***'"
    return re.sub(r"//[^/@]*@", "//***@", repr(value))


def load(
    flags: Mapping[str, object], environ: Mapping[str, str] = os.environ
) -> tuple[Settings, list[str]]:
    """Return the settings, and warnings about what was given and means nothing.

    `flags` are the flags that were given, by the setting's name, and `config` for the file's path.
    A variable that is set to nothing counts as not set. Raises `SettingsError`.
    """
    file = flags.get("config") or environ.get("KEYRACK_CONFIG")
    given = _from_file(str(file)) if file else {}
    given |= _from_environment(environ)
    given |= {
        name: _Given(f"{flag(name)} {_told(name, value)}", value)
        for name, value in flags.items()
        if name in ROWS
    }
    values = {name: _parsed(name, one) for name, one in given.items()}
    _check_body(values, given)
    _check_tls(values, given)
    _check_data_directory(values, given)
    _check_engine(values, given)
    if "token" in values and "token_file" in values:
        raise SettingsError("Give --token or --token-file, not both.")
    return Settings(**values), list(_warnings(environ))


def refuse_open_network(settings: Settings) -> None:
    """Refuse to serve everybody on a network, unless that was said. Raises `SettingsError`."""
    if settings.is_open_to_network and settings.auth != "none":
        raise SettingsError(
            f"On {settings.host} everybody who reaches the port could read and write everything. "
            "Name who may with --auth FILE (`keyrack token create --admin --file FILE` makes one), "
            "or give one token in KEYRACK_TOKEN (`keyrack token new` prints one), or say --auth "
            "none if that is what you want."
        )


def _is_loopback(host: str) -> bool:
    import ipaddress  # only for those who serve

    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _parsed(name: str, given: _Given) -> Any:
    kind = ROWS[name].kind
    try:
        return kind.parse(given.value)
    except ValueError:
        raise SettingsError(f"{given.where} is not {kind.expected}.") from None


def _from_file(path: str) -> dict[str, _Given]:
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"The file {path!r} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The file {path!r} is not TOML: {error}.") from None
    for key in table.keys() - ROWS.keys():
        raise SettingsError(f"{key!r} in {path!r} is no setting{_meant(key, ROWS)}.")
    return {
        name: _Given(f"{name} = {_told(name, value)} in {path!r}", value)
        for name, value in table.items()
    }


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    return {
        name: _Given(f"{key}={_told(name, value)}", value)
        for name in ROWS
        if (value := environ.get(key := variable(name))) and not _is_service_link(key, value)
    }


def _check_body(values: dict[str, Any], given: Mapping[str, _Given]) -> None:
    """Refuse a body's limit below a value's; one that nobody chose follows the value's."""
    value, body = (values.get(name, _DEFAULTS[name]) for name in ("max_value", "max_body"))
    if body >= value:
        return
    if "max_body" not in given:
        values["max_body"] = value
        return
    source = given["max_value"].where if "max_value" in given else "the default of --max-value"
    raise SettingsError(
        f"{given['max_body'].where} is less than the longest value ({shown_size(value)}, "
        f"{source}); a body needs at least that."
    )


def _check_data_directory(values: Mapping[str, Any], given: Mapping[str, _Given]) -> None:
    mode = values.get("durability", _DEFAULTS["durability"])
    if mode != "none" and "data_dir" not in values:
        raise SettingsError(
            f"{given['durability'].where} was given alone; name the directory with --data-dir."
        )
    if mode == "none" and "data_dir" in values:
        raise SettingsError(
            f"{given['data_dir'].where} is of no use with --durability none; choose --durability "
            "snapshot or commit."
        )


def _check_engine(values: Mapping[str, Any], given: Mapping[str, _Given]) -> None:
    for one, other in (("engine_cert", "engine_key"), ("engine_key", "engine_cert")):
        if one in values and other not in values:
            raise SettingsError(f"{given[one].where} was given alone; it needs {flag(other)}.")
    if "engine_password" in values and "engine_password_file" in values:
        raise SettingsError("Give --engine-password or --engine-password-file, not both.")
    if values.get("engine", "embedded") == "embedded":
        return
    if values.get("takeover"):
        raise SettingsError(
            f"{given['takeover'].where} is for a store in this machine's memory. With one in "
            "Valkey, start the new service beside the old one, and end that."
        )
    if values.get("when_full") == "evict":
        raise SettingsError(
            f"{given['when_full'].where} is for a store in this machine's memory. Valkey removes "
            "keys itself where its maxmemory-policy says so; see --valkey-may-evict."
        )
    if "data_dir" in values:
        raise SettingsError(
            f"{given['data_dir'].where} is for a store in this machine's memory. What Valkey keeps "
            "on a disk is set there: appendonly, save."
        )


def _check_tls(values: Mapping[str, Any], given: Mapping[str, _Given]) -> None:
    names = [name for name in ("tls_cert", "tls_key") if name in values]
    if len(names) == 1:
        raise SettingsError(
            f"{given[names[0]].where} was given alone; HTTPS needs both --tls-cert and --tls-key."
        )
    if "tls_client_ca" in values and not names:
        raise SettingsError(
            f"{given['tls_client_ca'].where} is of no use without HTTPS: --tls-cert and --tls-key."
        )
    if values.get("tls_client_required") and "tls_client_ca" not in values:
        raise SettingsError(
            f"{given['tls_client_required'].where} needs --tls-client-ca: whose certificates count."
        )
    if names:
        _check_certificate(values["tls_cert"], values["tls_key"], given)


def _check_certificate(cert: str, key: str, given: Mapping[str, _Given]) -> None:
    import ssl  # costs 10 ms, and most services do without

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Without a password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SettingsError(
            f"{given['tls_cert'].where} and {given['tls_key'].where} are not a certificate and "
            f"its unencrypted private key in PEM ({error})."
        ) from None


_SERVICE_LINK: Final = re.compile(
    r"KEYRACK_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)"
)


def _is_service_link(name: str, value: str) -> bool:
    """Tell whether Kubernetes made a variable for a service that is called keyrack.

    It makes KEYRACK_PORT=tcp://10.0.0.1:8088, which is nobody's setting of a port.
    """
    if name == variable("port"):
        return re.match(r"(tcp|udp|sctp)://", value) is not None
    return _SERVICE_LINK.fullmatch(name) is not None


def _warnings(environ: Mapping[str, str]) -> Iterator[str]:
    known = {variable(name) for name in ROWS} | _OTHER_VARIABLES
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in known or _is_service_link(name, ""):
            continue
        meant = _meant(name, known)
        yield f"The environment's variable {name} is no setting{meant}; it is ignored."


def _meant(name: str, known: Sequence[str] | Mapping[str, Row] | set[str]) -> str:
    import difflib  # only for messages

    for close in difflib.get_close_matches(name.replace("-", "_"), known, 1):
        return f" (is {close!r} meant?)"
    return ""


def unknown_flag(given: str) -> str:
    """Return a sentence about what was given on the command line and is no flag of a setting."""
    import difflib  # only for messages

    name = given.partition("=")[0]
    if not name.startswith("-"):
        return f"{given!r} is not expected: every setting is given by a flag, like --port 8088."
    known = [flag(row) for row in (*ROWS, "config")]
    known += [flag(f"no_{row}") for row in ROWS if ROWS[row].kind.is_switch]
    for close in difflib.get_close_matches(name.replace("_", "-"), known, 1):
        return f"{name} is no setting (is {close} meant?)."
    return f"{name} is no setting; `keyrack serve --help` lists them."


# Showing


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting, in groups. Values stay texts; flags not given stay away."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="Read settings from this TOML file, as well: KEYRACK_CONFIG.",
    )
    groups = {row.group: parser.add_argument_group(row.group) for row in ROWS.values()}
    for name, row in ROWS.items():
        text = f"{row.help} [{variable(name)}; default: {_shown_default(name)}]"
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text.replace("%", "%%")}
        if row.kind.is_switch:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["metavar"] = row.metavar
        groups[row.group].add_argument(flag(name), **options)


def _shown_default(name: str) -> str:
    row = ROWS[name]
    return row.unset or row.kind.show(_DEFAULTS[name])


_INTRODUCTION: Final = """\
# Settings

<!-- Made by `python -m keyrack.settings`; change src/keyrack/settings.py instead. -->

Every setting of `keyrack serve` can be given in three ways. The first that is given counts:

1. a flag: `keyrack serve --max-value 4m`
2. a variable of the environment: `KEYRACK_MAX_VALUE=4m`
3. a key of the TOML file that `--config` or `KEYRACK_CONFIG` names: `max_value = "4m"`

Sizes are bytes, or carry a unit: `512k`, `64m`, `1.5g` (also `KiB`, `MB` and so on; a unit is
always a power of 1024). Times are seconds, or carry units: `500ms`, `90s`, `5m`, `1h30m`, `1d`.
Switches are `--access-log` and `--no-access-log`, elsewhere `true` or `false`. Lists have commas,
in the file also `["a", "b"]`.

A value that cannot be used ends `keyrack serve` with exit code 2 and a sentence that says which it
was. So does an unknown key of the file. An unknown variable that begins with `KEYRACK_` is warned
about. A variable that is set to nothing counts as not set, and so do those that Kubernetes makes
for a service called `keyrack` (`KEYRACK_PORT=tcp://10.0.0.1:8088`).
"""


_TABLE_HEAD: Final = "| setting | expected | default | meaning |\n|---|---|---|---|"


def markdown() -> str:
    """Return the page `docs/settings.md`."""
    lines = [_INTRODUCTION]
    for group in dict.fromkeys(row.group for row in ROWS.values()):
        lines += [f"## {group}", "", _TABLE_HEAD]
        lines += [_markdown_row(name) for name, row in ROWS.items() if row.group == group]
        lines.append("")
    return "\n".join(lines)


def _markdown_row(name: str) -> str:
    row = ROWS[name]
    default = row.unset or f"`{_shown_default(name)}`"
    names = f"`{flag(name)}`<br>`{variable(name)}`<br>`{name}`"
    return f"| {names} | {row.kind.expected} | {default} | {row.help} |"


if __name__ == "__main__":
    print(markdown(), end="")
