"""How Python's values become bytes with a media type, and come back.

What is read is taken for what its media type says, never for what it looks like. None of these
executes what it reads, except `SignedPickle`, which reads only what it has signed itself. There is
no pickle without a signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from keyrack.client.errors import KeyrackError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TEXT: Final = "text/plain; charset=utf-8"
BINARY: Final = "application/octet-stream"
JSON: Final = "application/json"
SIGNED_PICKLE: Final = "application/vnd.keyrack.signed-pickle"


class Unreadable(KeyrackError, ValueError):
    """Raised when a stored value is not what its media type says, or its signature is wrong."""


class Serializer(Protocol):
    """What a client is given as `serializer=`. `key` is the whole key, for those that sign."""

    def dumps(self, value: Any, key: bytes, /) -> tuple[bytes, str]:
        """Return a value's bytes and media type. Raises `TypeError` for what it cannot store."""

    def loads(self, data: bytes, media_type: str, key: bytes, /) -> Any:
        """Return the value that bytes of a media type stand for. Raises `Unreadable`."""


def from_json(data: bytes) -> Any:
    """Return the value of a JSON text. Raises `Unreadable`."""
    import json  # not before it is needed: it costs as much as a connection

    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"The value is called JSON and cannot be read as such: {error}.") from None


def essence(media_type: str) -> str:
    """Return a media type without its parameters, in lower case."""
    return media_type.partition(";")[0].strip().lower()


class Auto:
    """The default: `str` as text, bytes as they are, and what JSON has as JSON.

    A value comes back equal, or it is refused: a tuple, a set, a date or a dict whose keys are no
    strings is a `TypeError`.
    """

    def dumps(self, value: Any, key: bytes, /) -> tuple[bytes, str]:
        """Return a value's bytes and media type."""
        if value.__class__ is str:
            return value.encode(), TEXT
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value), BINARY
        if isinstance(value, str):
            return str(value).encode(), TEXT
        if not _is_plain(value, set()):
            raise TypeError(_cannot(value))
        import json  # see above

        try:
            return json.dumps(value, separators=(",", ":"), allow_nan=False).encode(), JSON
        except ValueError as error:
            raise TypeError(f"JSON has no such value: {error}.") from None

    def loads(self, data: bytes, media_type: str, key: bytes, /) -> Any:
        """Return text as `str`, JSON as what it stands for, anything else as bytes."""
        if media_type == TEXT or (kind := essence(media_type)).startswith("text/"):
            try:
                return data.decode()
            except UnicodeDecodeError:
                return data  # another charset: the bytes are all that is known for sure
        return from_json(data) if kind == JSON else data


def _is_plain(value: Any, above: set[int]) -> bool:
    """Tell whether JSON gives a value back equal. `above` has the ids of what it is part of."""
    kind = value.__class__
    if kind in (str, int, float, bool, type(None)):
        return True
    if kind not in (dict, list) or id(value) in above:
        return False
    above.add(id(value))
    if kind is dict:
        fine = all(name.__class__ is str and _is_plain(one, above) for name, one in value.items())
    else:
        fine = all(_is_plain(one, above) for one in value)
    above.discard(id(value))
    return fine


def _cannot(value: Any) -> str:
    return (
        f"A {type(value).__name__} cannot be stored as it is, because it would not come back equal "
        "(dicts with str keys, lists, str, int, float, bool, None and bytes do). Convert it, or "
        "give the client a serializer: Json(default=...), Msgspec(type), SignedPickle(secret)."
    )


class Json:
    """Everything as JSON, as `json` does it: tuples become lists, and `default` helps with others.

    `cls` is an encoder for `json.dumps`.
    """

    def __init__(
        self, *, default: Callable[[Any], Any] | None = None, cls: type[Any] | None = None
    ) -> None:
        self._default = default
        self._encoder = cls

    def dumps(self, value: Any, key: bytes, /) -> tuple[bytes, str]:
        """Return a value's JSON."""
        import json  # see above

        text = json.dumps(
            value,
            default=self._default,
            cls=self._encoder,
            separators=(",", ":"),
            ensure_ascii=False,
        )
        return text.encode(), JSON

    def loads(self, data: bytes, media_type: str, key: bytes, /) -> Any:
        """Return JSON as what it stands for, anything else as `Auto` does."""
        return AUTO.loads(data, media_type, key)


class Msgspec:
    """Values of one type, as JSON, checked against the type when they are read."""

    def __init__(self, kind: Any) -> None:
        import msgspec  # not before somebody wants it

        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(kind).decode
        self._kind = kind

    def dumps(self, value: Any, key: bytes, /) -> tuple[bytes, str]:
        """Return a value's JSON."""
        return self._encode(value), JSON

    def loads(self, data: bytes, media_type: str, key: bytes, /) -> Any:
        """Return an object of the type. Raises `Unreadable` for anything else."""
        if essence(media_type) != JSON:
            raise Unreadable(f"The value is {media_type}, not JSON.")
        try:
            return self._decode(data)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"The value is no {self._kind}: {error}.") from None


class Raw:
    """Bytes and text as they are; the server decides on the media type. Reads give bytes."""

    def dumps(self, value: Any, key: bytes, /) -> tuple[bytes, str]:
        """Return the bytes, and no media type."""
        if isinstance(value, str):
            return value.encode(), ""
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value), ""
        raise TypeError(f"Only bytes and str are raw, not {type(value).__name__}.")

    def loads(self, data: bytes, media_type: str, key: bytes, /) -> Any:
        """Return the bytes."""
        return data


class Signer:
    """Puts a signature before bytes, the HMAC-SHA256 of key and bytes, and takes it off again.

    `fallbacks` are earlier secrets that are still good for reading. Secrets have at least 16 bytes.
    """

    def __init__(self, secret: bytes | str, fallbacks: Sequence[bytes | str] = ()) -> None:
        self._secrets = [_as_secret(one) for one in (secret, *fallbacks)]

    def signed(self, key: bytes, payload: bytes) -> bytes:
        """Return bytes that are to be stored under a key, with their signature before them."""
        return _signature(self._secrets[0], key, payload) + payload

    def opened(self, key: bytes, data: bytes) -> bytes:
        """Return the bytes behind a signature. Raises `Unreadable` for one that is not right."""
        import hmac

        given, payload = data[:32], data[32:]
        right = [hmac.compare_digest(given, _signature(s, key, payload)) for s in self._secrets]
        if not any(right):
            raise Unreadable("The value's signature is not of this secret and key; it is not read.")
        return payload


class SignedPickle:
    """Anything that can be pickled, signed with a secret of at least 16 bytes.

    What is stored is the HMAC-SHA256 of key and pickle, then the pickle. Nothing is unpickled whose
    signature is not right for the very key that it was read from, so that somebody who can write
    to the store can neither run code here nor move a value to another key. `fallbacks` are
    earlier secrets that are still good for reading. Values of other media types are read as
    `Auto` reads them.
    """

    def __init__(self, secret: bytes | str, fallbacks: Sequence[bytes | str] = ()) -> None:
        self._signer = Signer(secret, fallbacks)

    def dumps(self, value: Any, key: bytes, /) -> tuple[bytes, str]:
        """Return the signed pickle of a value."""
        import pickle

        payload = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        return self._signer.signed(key, payload), SIGNED_PICKLE

    def loads(self, data: bytes, media_type: str, key: bytes, /) -> Any:
        """Return the value, once the signature was found right. Raises `Unreadable`."""
        if essence(media_type) != SIGNED_PICKLE:
            return AUTO.loads(data, media_type, key)
        import pickle

        return pickle.loads(self._signer.opened(key, data))  # nosec B301 - its signature was checked


class PlainOrSigned:
    """Plain values as `Auto` stores them, all others as a signed pickle; without one, not at all.

    What adapters of caches use: a value comes back equal and of the same class.
    """

    def __init__(self, other: SignedPickle | None) -> None:
        self._other = other

    def dumps(self, value: Any, key: bytes, /) -> tuple[bytes, str]:
        """Return a value's bytes and media type."""
        # A subclass of str is more than its text: a template's SafeString, a member of an enum.
        if not isinstance(value, str | bytes) or type(value) in (str, bytes):
            try:
                return AUTO.dumps(value, key)
            except TypeError:
                if self._other is None:
                    raise
        if self._other is None:
            raise TypeError(_cannot(value))
        return self._other.dumps(value, key)

    def loads(self, data: bytes, media_type: str, key: bytes, /) -> Any:
        """Return the value. Raises `Unreadable`."""
        return (self._other or AUTO).loads(data, media_type, key)


def _as_secret(given: bytes | str) -> bytes:
    secret = given.encode() if isinstance(given, str) else bytes(given)
    if len(secret) < 16:
        raise ValueError("A secret for signing has at least 16 bytes.")
    return secret


def _signature(secret: bytes, key: bytes, payload: bytes) -> bytes:
    import hmac

    # The length keeps the end of a key from being taken for the beginning of a pickle.
    return hmac.digest(secret, b"%d:%b" % (len(key), key) + payload, "sha256")


AUTO: Final = Auto()
