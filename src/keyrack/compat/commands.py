"""The table of Redis' commands that there are, and the names of those that there are not.

A row says what a command takes, which rights its keys need, and the function that does it on an
engine. Nothing here knows how commands arrive: a protocol reads them, judges the sender by `needs`,
and calls `run` or `run_together`.
"""

from __future__ import annotations

import enum
import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

from keyrack.access.rules import Verb
from keyrack.compat import keyspace, server, strings
from keyrack.compat.patterns import MOST_BYTES, compiled
from keyrack.compat.replies import CommandError
from keyrack.compat.transaction import attempted
from keyrack.engines.contract import MAX_KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from keyrack.compat.replies import Reply
    from keyrack.compat.strings import Arguments
    from keyrack.compat.transaction import CommandStore, Transaction


class CommandFlag(enum.Flag):
    """What a command is like."""

    READS = 0
    WRITES = enum.auto()
    """It may change something."""
    BLIND = enum.auto()
    """As a rule it looks at nothing before it writes."""
    DIRECT = enum.auto()
    """Alone it is a write of the engine's own, for which nothing is read before."""
    OF_ALL = enum.auto()
    """It is about all keys, not about those that it names, and so not part of a transaction."""


class Reach(enum.Enum):
    """Which keys a right is needed on."""

    KEY = "the key"
    SOME = "some key that begins like this"
    ALL = "every key"


class KeyNeed(NamedTuple):
    """A right that the sender of a command needs. `key` is a key, or how keys begin."""

    verb: Verb
    key: bytes = b""
    reach: Reach = Reach.KEY


class RedisCommand(NamedTuple):
    """A command. `arity` is as in Redis: with its name, and negative where it is the least."""

    name: str
    usage: str
    arity: int
    flags: CommandFlag
    keys: Callable[[Arguments], Sequence[bytes]]
    """Which arguments are keys."""
    needs: Callable[[Arguments], Sequence[KeyNeed]]
    rights: str
    """What `needs` says, in words."""
    run: Callable[[Arguments, Transaction], Awaitable[Reply]]
    differs: str = ""
    """How it is not as in Redis."""

    @property
    def writes(self) -> bool:
        """Whether it may change something."""
        return CommandFlag.WRITES in self.flags


class CommandCall(NamedTuple):
    """A command with its arguments, whose number is right and whose keys can be keys."""

    command: RedisCommand
    arguments: Arguments

    @property
    def keys(self) -> Sequence[bytes]:
        """The keys that it names."""
        return self.command.keys(self.arguments)

    @property
    def is_direct(self) -> bool:
        """Whether, alone, it is a write for which nothing is read before."""
        return CommandFlag.DIRECT in self.command.flags and not self._looks_first

    @property
    def is_blind(self) -> bool:
        """Whether it looks at nothing before it writes, be it one of several or alone."""
        return CommandFlag.BLIND in self.command.flags and not self._looks_first

    @property
    def _looks_first(self) -> bool:
        return self.command.name == "SET" and strings.looks_first(self.arguments)

    @property
    def needs(self) -> Sequence[KeyNeed]:
        """The rights that its sender needs."""
        return self.command.needs(self.arguments)


# Which arguments are keys


def _no_key(given: Arguments) -> Sequence[bytes]:
    return ()


def _first(given: Arguments) -> Sequence[bytes]:
    return given[:1]


def _two(given: Arguments) -> Sequence[bytes]:
    return given[:2]


def _all(given: Arguments) -> Sequence[bytes]:
    return given


def _every_other(given: Arguments) -> Sequence[bytes]:
    return given[::2]


# Which rights they need


def _nothing(given: Arguments) -> Sequence[KeyNeed]:
    return ()


def _of(
    keys: Callable[[Arguments], Sequence[bytes]], *verbs: Verb
) -> Callable[[Arguments], Sequence[KeyNeed]]:
    return lambda given: [KeyNeed(verb, key) for key in keys(given) for verb in verbs]


def _of_set(given: Arguments) -> Sequence[KeyNeed]:
    verbs = [Verb.SET]
    if any(one.upper() == b"GET" for one in given[2:]):
        verbs.append(Verb.READ)
    return [KeyNeed(verb, given[0]) for verb in verbs]


def _of_getex(given: Arguments) -> Sequence[KeyNeed]:
    verbs = (Verb.READ, Verb.SET) if len(given) > 1 else (Verb.READ,)
    return [KeyNeed(verb, given[0]) for verb in verbs]


def _of_rename(given: Arguments) -> Sequence[KeyNeed]:
    key, new = given
    return [KeyNeed(Verb.READ, key), KeyNeed(Verb.DELETE, key), KeyNeed(Verb.SET, new)]


def _of_copy(given: Arguments) -> Sequence[KeyNeed]:
    return [KeyNeed(Verb.READ, given[0]), KeyNeed(Verb.SET, given[1])]


def _of_keys(given: Arguments) -> Sequence[KeyNeed]:
    return [KeyNeed(Verb.LIST, compiled(given[0]).prefix, Reach.SOME)]


def _of_scan(given: Arguments) -> Sequence[KeyNeed]:
    for name, value in itertools.pairwise(given[1:]):
        if name.upper() == b"MATCH":
            return [KeyNeed(Verb.LIST, compiled(value).prefix, Reach.SOME)]
    return _of_some(given)


def _of_some(given: Arguments) -> Sequence[KeyNeed]:
    return [KeyNeed(Verb.LIST, b"", Reach.SOME)]


def _of_all(verb: Verb) -> Callable[[Arguments], Sequence[KeyNeed]]:
    return lambda given: [KeyNeed(verb, b"", Reach.ALL)]


_READ: Final = _of(_first, Verb.READ)
_SET: Final = _of(_first, Verb.SET)
_CHANGE: Final = _of(_first, Verb.SET, Verb.READ)
_OF_ALL: Final = CommandFlag.OF_ALL
_R: Final = CommandFlag.READS
_W: Final = CommandFlag.WRITES
_DIRECT: Final = CommandFlag.WRITES | CommandFlag.DIRECT
_BLIND: Final = _DIRECT | CommandFlag.BLIND
_LENGTH: Final = "`set` and `read`"
_TEN_YEARS: Final = "At most ten years."
_A_MOMENT: Final = "With an option, two at the same moment may both find the end as it was."
_EACH_SHARD: Final = "On a Valkey cluster keys of several slots go one by one."
_ONE_SHARD: Final = "On a Valkey cluster all keys have to be in one slot."


def _table() -> Iterator[RedisCommand]:
    s, k, o = strings, keyspace, server
    yield RedisCommand("GET", "key", 2, _R, _first, _READ, "`read`", s.get)
    yield RedisCommand(
        "SET", "key value [NX|XX] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL]", -3, _BLIND, _first,
        _of_set, "`set`, with `GET` `read` as well", s.set_, _TEN_YEARS,
    )  # fmt: skip
    yield RedisCommand(
        "SETEX", "key seconds value", 4, _BLIND, _first, _SET, "`set`", s.setex, _TEN_YEARS
    )
    yield RedisCommand(
        "PSETEX", "key milliseconds value", 4, _BLIND, _first, _SET, "`set`", s.psetex, _TEN_YEARS
    )
    yield RedisCommand("SETNX", "key value", 3, _W, _first, _SET, "`set`", s.setnx)
    yield RedisCommand("GETSET", "key value", 3, _W, _first, _CHANGE, _LENGTH, s.getset)
    yield RedisCommand(
        "GETDEL", "key", 2, _W, _first, _of(_first, Verb.READ, Verb.DELETE), "`read` and `delete`",
        s.getdel,
    )  # fmt: skip
    yield RedisCommand(
        "GETEX", "key [EX s|PX ms|EXAT s|PXAT ms|PERSIST]", -2, _W, _first, _of_getex,
        "`read`, with an option `set` as well", s.getex, _TEN_YEARS,
    )  # fmt: skip
    yield RedisCommand(
        "MGET", "key...", -2, _R, _all, _of(_all, Verb.READ), "`read` of each", s.mget
    )
    yield RedisCommand(
        "MSET", "key value...", -3, _BLIND, _every_other, _of(_every_other, Verb.SET),
        "`set` of each", s.mset, _ONE_SHARD,
    )  # fmt: skip
    yield RedisCommand(
        "MSETNX", "key value...", -3, _W, _every_other, _of(_every_other, Verb.SET),
        "`set` of each", s.msetnx, _ONE_SHARD,
    )  # fmt: skip
    yield RedisCommand("STRLEN", "key", 2, _R, _first, _READ, "`read`", s.strlen)
    yield RedisCommand("GETRANGE", "key start end", 4, _R, _first, _READ, "`read`", s.getrange)
    yield RedisCommand("APPEND", "key value", 3, _W, _first, _CHANGE, _LENGTH, s.append)
    yield RedisCommand("SETRANGE", "key offset value", 4, _W, _first, _CHANGE, _LENGTH, s.setrange)
    yield RedisCommand("INCR", "key", 2, _DIRECT, _first, _CHANGE, _LENGTH, s.incr)
    yield RedisCommand("INCRBY", "key number", 3, _DIRECT, _first, _CHANGE, _LENGTH, s.incrby)
    yield RedisCommand("DECR", "key", 2, _DIRECT, _first, _CHANGE, _LENGTH, s.decr)
    yield RedisCommand("DECRBY", "key number", 3, _DIRECT, _first, _CHANGE, _LENGTH, s.decrby)
    yield RedisCommand(
        "INCRBYFLOAT", "key number", 3, _W, _first, _CHANGE, _LENGTH, s.incrbyfloat,
        "Adds decimal numbers exactly: 0.1 and 0.2 are 0.3. Nothing beyond 1e308, no hexadecimal.",
    )  # fmt: skip
    for name in ("DEL", "UNLINK"):
        yield RedisCommand(
            name, "key...", -2, _DIRECT, _all, _of(_all, Verb.DELETE), "`delete` of each", k.delete,
            _EACH_SHARD,
        )  # fmt: skip
    for name in ("EXISTS", "TOUCH"):
        yield RedisCommand(
            name, "key...", -2, _R, _all, _of(_all, Verb.READ), "`read` of each", k.exists,
            "" if name == "EXISTS" else "Counts them, and does not count as a use of them.",
        )  # fmt: skip
    yield RedisCommand(
        "TYPE", "key", 2, _R, _first, _READ, "`read`", k.type_, "`string` or `none`: no more types."
    )
    yield RedisCommand("TTL", "key", 2, _R, _first, _READ, "`read`", k.ttl)
    yield RedisCommand("PTTL", "key", 2, _R, _first, _READ, "`read`", k.pttl)
    for name, function in (("EXPIRETIME", k.expiretime), ("PEXPIRETIME", k.pexpiretime)):
        yield RedisCommand(
            name, "key", 2, _R, _first, _READ, "`read`", function,
            "An end is kept on the store's own clock, so this may differ by some milliseconds.",
        )  # fmt: skip
    for name, end in (
        ("EXPIRE", k.expire), ("PEXPIRE", k.pexpire), ("EXPIREAT", k.expireat),
        ("PEXPIREAT", k.pexpireat),
    ):  # fmt: skip
        yield RedisCommand(
            name, "key time [NX|XX|GT|LT]", -3, _W, _first, _SET, "`set`", end,
            f"{_TEN_YEARS} {_A_MOMENT}",
        )  # fmt: skip
    yield RedisCommand(
        "PERSIST", "key", 2, _W, _first, _SET, "`set`", k.persist,
        "Two at the same moment may both answer 1.",
    )  # fmt: skip
    for name, function in (("RENAME", k.rename), ("RENAMENX", k.renamenx)):
        yield RedisCommand(
            name, "key newkey", 3, _W, _two, _of_rename,
            "`read` and `delete` of the one, `set` of the other", function, _ONE_SHARD,
        )  # fmt: skip
    yield RedisCommand(
        "COPY", "source destination [DB 0] [REPLACE]", -3, _W, _two, _of_copy,
        "`read` of the one, `set` of the other", k.copy, f"There is no DB but 0. {_ONE_SHARD}",
    )  # fmt: skip
    yield RedisCommand(
        "SCAN", "cursor [MATCH pattern] [COUNT number] [TYPE type]", -2, _OF_ALL, _no_key, _of_scan,
        "`list` of some key, and shows those that may be listed", k.scan,
        "In the order of the keys, each key once. A cursor is a number of up to "
        f"{keyspace.MOST_DIGITS} digits.",
    )  # fmt: skip
    yield RedisCommand(
        "KEYS", "pattern", 2, _OF_ALL, _no_key, _of_keys,
        "`list` of some key, and shows those that may be listed", k.keys,
        f"At most {keyspace.MOST_NAMES} names. A pattern has at most {MOST_BYTES} bytes.",
    )  # fmt: skip
    yield RedisCommand(
        "RANDOMKEY", "", 1, _OF_ALL, _no_key, _of_some, "`list` of some key", k.randomkey,
        "Of more than a thousand keys some are likelier than others.",
    )  # fmt: skip
    yield RedisCommand(
        "DBSIZE", "", 1, _OF_ALL, _no_key, _of_all(Verb.LIST), "`list` of all", k.dbsize
    )
    for name in ("FLUSHDB", "FLUSHALL"):
        yield RedisCommand(
            name, "[ASYNC|SYNC]", -1, _W | _OF_ALL, _no_key, _of_all(Verb.DELETE),
            "`delete` of all", k.flushdb, "In steps: what is set meanwhile stays.",
        )  # fmt: skip
    yield RedisCommand("PING", "[message]", -1, _R, _no_key, _nothing, "any token", o.ping)
    yield RedisCommand("ECHO", "message", 2, _R, _no_key, _nothing, "any token", o.echo)
    yield RedisCommand("TIME", "", 1, _R, _no_key, _nothing, "any token", o.time)


COMMANDS: Final[dict[bytes, RedisCommand]] = {one.name.encode(): one for one in _table()}


_GROUPS: Final = {
    "hashes": "HDEL HEXISTS HEXPIRE HEXPIREAT HEXPIRETIME HGET HGETALL HGETDEL HGETEX HINCRBY "
    "HINCRBYFLOAT HKEYS HLEN HMGET HMSET HPERSIST HPEXPIRE HPEXPIREAT HPEXPIRETIME HPTTL "
    "HRANDFIELD HSCAN HSET HSETEX HSETNX HSTRLEN HTTL HVALS",
    "lists": "BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH LINDEX LINSERT LLEN LMOVE LMPOP LPOP LPOS LPUSH "
    "LPUSHX LRANGE LREM LSET LTRIM RPOP RPOPLPUSH RPUSH RPUSHX SORT SORT_RO",
    "sets": "SADD SCARD SDIFF SDIFFSTORE SINTER SINTERCARD SINTERSTORE SISMEMBER SMEMBERS "
    "SMISMEMBER SMOVE SPOP SRANDMEMBER SREM SSCAN SUNION SUNIONSTORE",
    "sorted sets": "BZMPOP BZPOPMAX BZPOPMIN ZADD ZCARD ZCOUNT ZDIFF ZDIFFSTORE ZINCRBY ZINTER "
    "ZINTERCARD ZINTERSTORE ZLEXCOUNT ZMPOP ZMSCORE ZPOPMAX ZPOPMIN ZRANDMEMBER ZRANGE ZRANGEBYLEX "
    "ZRANGEBYSCORE ZRANGESTORE ZRANK ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE "
    "ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE ZUNION ZUNIONSTORE",
    "streams": "XACK XACKDEL XADD XAUTOCLAIM XCLAIM XDEL XDELEX XGROUP XINFO XLEN XPENDING XRANGE "
    "XREAD XREADGROUP XREVRANGE XSETID XTRIM",
    "geospatial indexes": "GEOADD GEODIST GEOHASH GEOPOS GEORADIUS GEORADIUSBYMEMBER "
    "GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GEOSEARCHSTORE",
    "bitmaps": "BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS GETBIT SETBIT",
    "HyperLogLogs": "PFADD PFCOUNT PFDEBUG PFMERGE PFSELFTEST",
    "JSON documents": "JSON.ARRAPPEND JSON.ARRINDEX JSON.ARRINSERT JSON.ARRLEN JSON.ARRPOP "
    "JSON.ARRTRIM JSON.CLEAR JSON.DEBUG JSON.DEL JSON.FORGET JSON.GET JSON.MERGE JSON.MGET "
    "JSON.MSET JSON.NUMINCRBY JSON.NUMMULTBY JSON.OBJKEYS JSON.OBJLEN JSON.RESP JSON.SET "
    "JSON.STRAPPEND JSON.STRLEN JSON.TOGGLE JSON.TYPE",
    "search indexes": "SEARCH.AGGREGATE SEARCH.ALIASADD SEARCH.ALIASDEL SEARCH.ALIASLIST "
    "SEARCH.COUNT SEARCH.CREATE SEARCH.DESCRIBE SEARCH.DROP SEARCH.QUERY SEARCH.WAITINDEXING",
    "vector sets": "VADD VCARD VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VREM VSETATTR "
    "VSIM",
    "subscriptions": "MONITOR PSUBSCRIBE PUBLISH PUBSUB PUNSUBSCRIBE SPUBLISH SSUBSCRIBE SUBSCRIBE "
    "SUNSUBSCRIBE UNSUBSCRIBE",
    "administration": "ACL AUTH BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND CONFIG DEBUG FAILOVER "
    "HELLO INFO LASTSAVE LATENCY LOLWUT MEMORY MODULE PSYNC QUIT READONLY READWRITE REPLCONF "
    "REPLICAOF RESET ROLE SAVE SELECT SHUTDOWN SLAVEOF SLOWLOG SWAPDB SYNC WAIT WAITAOF",
    "commands that look inside": "DUMP LCS MIGRATE MOVE OBJECT RESTORE SUBSTR",
}
_WHY: Final = {
    "subscriptions": "GET /v1/watch tells of changes instead. ",
    "administration": "Keyrack's own API and `keyrack` have that. ",
}
_SCRIPTS: Final = frozenset(
    b"EVAL EVALSHA EVALSHA_RO EVAL_RO FCALL FCALL_RO FUNCTION SCRIPT".split()
)
_TRANSACTIONS: Final = frozenset(b"DISCARD EXEC MULTI UNWATCH WATCH".split())
REFUSED: Final[dict[bytes, str]] = {
    name.encode(): group for group, names in _GROUPS.items() for name in names.split()
}
"""What Redis and Upstash have and this has not, with the kind of thing that it is."""
AVAILABLE: Final = f"There are {', '.join(sorted(one.name for one in COMMANDS.values()))}."


def missing(name: bytes) -> CommandError:
    """Return what is told of a command that there is not: why, and what there is."""
    shown = name[:128].decode("utf-8", "replace")
    upper = name.upper()
    if upper in _TRANSACTIONS:
        detail = "a transaction is one request to /multi-exec, and there is no WATCH. "
    elif upper in _SCRIPTS:
        detail = (
            "there are no scripts, and so no @upstash/ratelimit, which is made of them. INCR and "
            "EXPIRE in a transaction count requests. "
        )
    elif upper in REFUSED:
        group = REFUSED[upper]
        detail = f"there are no {group}, only strings. {_WHY.get(group, '')}"
        if group in ("administration", "commands that look inside", "subscriptions"):
            detail = f"there is nothing like it. {_WHY.get(group, '')}"
    else:
        return CommandError(f"unknown command '{shown}'. {AVAILABLE}")
    return CommandError(f"'{shown}' is not available: {detail}{AVAILABLE}")


def call_of(words: Sequence[bytes]) -> CommandCall:
    """Return what some words call; raise `CommandError` where they call nothing that there is."""
    if not words:
        raise CommandError("empty command")
    command = COMMANDS.get(words[0].upper())
    if command is None:
        raise missing(words[0])
    arguments = tuple(words[1:])
    if len(words) != command.arity if command.arity > 0 else len(words) < -command.arity:
        raise wrong_number(command)
    if command.name == "PING" and len(words) > 2:
        raise wrong_number(command)
    for key in command.keys(arguments):
        _check_key(key)
    return CommandCall(command, arguments)


def wrong_number(command: RedisCommand) -> CommandError:
    """Return what is told of a command with too many or too few arguments."""
    return CommandError(f"wrong number of arguments for '{command.name.lower()}' command")


def _check_key(key: bytes) -> None:
    if not 1 <= len(key) <= MAX_KEY_BYTES:
        raise CommandError(f"a key has 1 to {MAX_KEY_BYTES} bytes here, and this has {len(key)}")
    try:
        key.decode()
    except UnicodeDecodeError as error:
        raise CommandError(f"a key is UTF-8 here, and this is not at byte {error.start}") from None


def size_of(reply: Reply | CommandError) -> int:
    """Return how many bytes of users' values a reply has."""
    if isinstance(reply, bytes):
        return len(reply)
    return sum(map(size_of, reply)) if isinstance(reply, list) else 0


async def run(call: CommandCall, store: CommandStore) -> Reply:
    """Do one command, in one commit if it changes something. Raises `CommandError`."""

    async def run_alone(view: Transaction) -> Reply:
        reply = await call.command.run(call.arguments, view)
        view.check_read(size_of(reply))
        return reply

    return await attempted(store, run_alone, changes=call.command.writes)


async def run_together(
    calls: Sequence[CommandCall], store: CommandStore
) -> list[Reply | CommandError]:
    """Do commands as one transaction: all in one commit, and nothing comes between.

    A command that fails has done nothing, and the others are done all the same, as in Redis. Raises
    `CommandError` where nothing was done at all.
    """
    for call in calls:
        if CommandFlag.OF_ALL in call.command.flags:
            name = call.command.name
            raise CommandError(f"{name} is not possible in a transaction here: send it alone")
    looking = (call for call in calls if not call.is_blind)
    keys = list(dict.fromkeys(key for call in looking for key in call.keys))
    replies: list[Reply | CommandError] = []

    async def run_all(view: Transaction) -> Reply:
        replies.clear()
        if keys:
            await view.read_ahead(keys)
        for call in calls:
            try:
                replies.append(await call.command.run(call.arguments, view))
            except CommandError as error:
                # With its traceback it would refer to itself, by way of this list.
                replies.append(error.with_traceback(None))
        # Before anything is done: what cannot be answered is not done.
        view.check_read(sum(map(size_of, replies)))
        return None

    changes = any(call.command.writes for call in calls)
    await attempted(store, run_all, alone=False, changes=changes)
    return replies
