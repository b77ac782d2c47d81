"""The table of all verbs. A verb is a row here, and a module with `COMMAND` and `run`.

Help, completion, docs/cli.md and the man page go over this table. Nothing is imported for a verb
that is not asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from keyrack.cli.spec import Command, Flag

_KEYS: Final = "Keys"
_MANY: Final = "Many keys"
_CHANGES: Final = "Changes"
_PROGRAMS: Final = "Programs"
_SERVICE: Final = "The service"
_DISK: Final = "On a disk"
_ACCESS: Final = "Who and where"
_HERE: Final = "On this side"

VERBS: Final = {
    "get": ("get", _KEYS, "Print a key's value"),
    "head": ("head", _KEYS, "Show a key's size, type, ETag and TTL"),
    "set": ("set", _KEYS, "Store a value"),
    "del": ("delete", _KEYS, "Remove keys, or all below a prefix"),
    "undo": ("undo", _KEYS, "Put back what was removed"),
    "touch": ("touch", _KEYS, "Give a key another TTL, or none"),
    "patch": ("patch", _KEYS, "Change members of a JSON value"),
    "incr": ("incr", _KEYS, "Add to a counter"),
    "wait": ("wait", _KEYS, "Wait until a key is there, gone, or another"),
    "history": ("history", _KEYS, "Show what happened to a key"),
    "ls": ("ls", _MANY, "List keys and folders"),
    "tree": ("tree", _MANY, "Show keys as a tree"),
    "find": ("find", _MANY, "List keys by type, size, TTL or name"),
    "batch": ("batch", _MANY, "Do several operations, all or none"),
    "export": ("export", _MANY, "Write keys as lines of JSON"),
    "import": ("import_", _MANY, "Store keys from lines of JSON"),
    "copy": ("copy", _MANY, "Copy keys between services and files"),
    "diff": ("diff", _MANY, "Show what is different between places or moments"),
    "watch": ("watch", _CHANGES, "Print what changes, or run a command for it"),
    "replay": ("replay", _CHANGES, "Tell what happened, up to now"),
    "run": ("run_", _PROGRAMS, "Run a program with its environment from keys"),
    "render": ("render", _PROGRAMS, "Write files from templates that name keys"),
    "lock": ("lock", _PROGRAMS, "Run a command while a lock is held"),
    "unlock": ("unlock", _PROGRAMS, "Give a lock back"),
    "locks": ("locks", _PROGRAMS, "Show who holds which locks"),
    "serve": ("serve", _SERVICE, "Run the service"),
    "health": ("health", _SERVICE, "Tell whether a service is alive"),
    "verify": ("verify", _SERVICE, "Check a running service from outside"),
    "doctor": ("doctor", _SERVICE, "Say what stands out in a running service"),
    "slow": ("slow", _SERVICE, "Show what was slow"),
    "hot": ("hot", _SERVICE, "Show which keys are asked for most"),
    "big": ("big", _SERVICE, "Show what fills the memory"),
    "clients": ("clients", _SERVICE, "Show who is connected, or end a connection"),
    "top": ("top", _SERVICE, "Show what a service does now"),
    "bench": ("bench", _SERVICE, "Load a service, and say how long requests took"),
    "info": ("info", _SERVICE, "Show what runs, and how full it is"),
    "limits": ("limits", _SERVICE, "Show every limit that is enforced"),
    "open": ("open_", _SERVICE, "Open the console in a browser"),
    "snapshot save": ("snapshot.save", _DISK, "Have a running service take one, and fetch it"),
    "snapshot list": ("snapshot.list_", _DISK, "Show those in a data directory"),
    "snapshot verify": ("snapshot.verify", _DISK, "Check files, every byte"),
    "snapshot restore": (
        "snapshot.restore",
        _DISK,
        "Put one into a data directory, for the next start",
    ),
    "data check": ("data.check", _DISK, "Say what can be read, and what is lost"),
    "data salvage": ("data.salvage", _DISK, "Go on with what can be read, and say what is lost"),
    "context list": ("context.list_", _ACCESS, "Show all contexts"),
    "context show": ("context.show", _ACCESS, "Show one, without its token"),
    "context add": ("context.add", _ACCESS, "Give a service a name"),
    "context use": ("context.use", _ACCESS, "Choose the one that is used"),
    "context remove": ("context.remove", _ACCESS, "Forget one"),
    "token new": ("token.new", _ACCESS, "Print a token and its hash; nothing is stored"),
    "token create": ("token.create", _ACCESS, "Make a token, in a file or in a running service"),
    "token list": ("token.list_", _ACCESS, "Show all tokens"),
    "token show": ("token.show", _ACCESS, "Show a token and its rules, in the order of decision"),
    "token revoke": ("token.revoke", _ACCESS, "Take a token back, at once"),
    "token rotate": ("token.rotate", _ACCESS, "Give a token another secret"),
    "token check": ("token.check", _ACCESS, "Tell whether something is allowed, and by which rule"),
    "token ticket": ("token.ticket", _ACCESS, "Make a weaker token for a short time"),
    "completion": ("completion", _HERE, "Print what makes a shell complete commands and keys"),
}
"""Each verb's module, group, and what it does. The order is that of the help."""

FAMILIES: Final = {
    "context": "Give services names, and choose one",
    "snapshot": "Save, list, verify and restore snapshots",
    "data": "Check a data directory, and salvage what is damaged",
    "token": "Make tokens, look at them, take them back",
}
"""Words that begin several verbs, and what these have in common."""

RAW: Final = frozenset(("serve",))
"""Verbs that read their arguments themselves: their `run` gets the words as they are."""


def load(verb: str) -> Command:
    """Return what a verb can be told."""
    from importlib import import_module

    command: Command = import_module(f"keyrack.cli.{VERBS[verb][0]}").COMMAND
    return command


def flags_of(verb: str) -> tuple[Flag, ...]:
    """Return every flag of a verb, those of `serve` as its settings have them."""
    if verb not in RAW:
        return load(verb).every_flag()
    from keyrack.cli.spec import Flag
    from keyrack.settings import ROWS, flag

    return tuple(
        Flag((flag(name),), row.help, "" if row.kind.is_switch else row.metavar or "VALUE")
        for name, row in ROWS.items()
    )


def commands_of(family: str) -> dict[str, str]:
    """Return the second words of a family's verbs, and what each does."""
    begun = f"{family} "
    return {
        verb.removeprefix(begun): row[2] for verb, row in VERBS.items() if verb.startswith(begun)
    }
