"""What shells complete: scripts made from the table of verbs, and words that a service knows."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from keyrack.cli import contexts, table
from keyrack.cli.spec import CONTEXTS, FILES, KEYS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from keyrack.cli.spec import Flag

SHELLS: Final = ("bash", "zsh", "fish")
_LIMIT_SECONDS: Final = 0.3
_MOST_KEYS: Final = 200


def script(shell: str) -> str:
    """Return the script of a shell."""
    made = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]
    return made()


# Words that are asked for while somebody types


def words(kind: str, begun: str) -> list[str]:
    """Return keys or contexts that begin so, none where that takes too long or fails.

    Keys come with folders, as `keyrack ls` shows them.
    """
    if kind == CONTEXTS:
        return [name for name in contexts.load().named if name.startswith(begun)]
    return _keys(begun)


def _keys(begun: str) -> list[str]:
    import os

    from keyrack.cli import asking, parsing, target
    from keyrack.cli.spec import Command

    # Whatever is slow, a token's command included, is cut short: somebody waits with a finger up.
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, _LIMIT_SECONDS)
    given: argparse.Namespace = parsing.parse(Command(""), [])
    with asking.service_of(target.target_of(given)) as service:
        found = []
        for item in service.scan(os.fsencode(begun), delimiter="/", page=_MOST_KEYS):
            found.append(item[0])
            if len(found) == _MOST_KEYS:
                break
    return [name for name in found if name.isprintable()]


def _too_late(_number: int, _frame: object) -> None:
    raise TimeoutError


# The scripts


def _kinds(verb: str) -> str:
    """Return what the words of a verb are: files, keys, contexts, or nothing that is known."""
    return next((one.completes for one in table.load(verb).arguments if one.completes), "")


def _rows() -> Iterator[tuple[str, tuple[Flag, ...], str]]:
    """Yield each verb, its flags, and what its words are."""
    for verb in table.VERBS:
        yield verb, table.flags_of(verb), _kinds(verb)


def _first_words() -> dict[str, str]:
    found: dict[str, str] = {}
    for verb, (_, _, summary) in table.VERBS.items():
        family = verb.partition(" ")[0]
        found.setdefault(family, table.FAMILIES.get(family, summary))
    return {**found, "help": "Tell more of a command"}


def _names(flags: tuple[Flag, ...]) -> list[str]:
    return [name for flag in flags for name in flag.names]


def _value_kind(flag: Flag) -> str:
    return f"={' '.join(flag.choices)}" if flag.choices else flag.completes


def _cases() -> Iterator[str]:
    """Yield the rows of a `case` that bash and zsh share: what a verb knows."""
    for verb, flags, kind in _rows():
        yield f"    '{verb}')"
        yield f"      flags='{' '.join(['--help', *_names(flags)])}' words='{kind}'"
        valued = [flag for flag in flags if flag.takes]
        if valued:
            yield '      case "$before" in'
            for flag in valued:
                yield f"        {'|'.join(flag.names)}) words='{_value_kind(flag) or '-'}' ;;"
            yield "      esac"
        yield "      ;;"


def _families() -> Iterator[str]:
    for family in table.FAMILIES:
        yield f"    '{family}') words='={' '.join(table.commands_of(family))}' ;;"


def _bash() -> str:
    return "\n".join(
        (
            "# bash completion of keyrack; load it with: source <(keyrack completion bash)",
            "_keyrack() {",
            "  local line cur before verb flags='' words='' at=1 i",
            "  local -a typed",
            '  line="${COMP_LINE:0:COMP_POINT}"',
            '  read -ra typed <<< "$line"',
            '  cur="${line##*[[:space:]]}"',
            '  [[ -n $cur ]] && unset "typed[-1]"',
            '  before="${typed[-1]}"',
            "  COMPREPLY=()",
            '  verb="${typed[1]-}"',
            '  [[ $verb == help ]] && at=2 && verb="${typed[2]-}"',
            '  case "$verb" in',
            f"    {'|'.join(table.FAMILIES)}) [[ -n ${{typed[at+1]-}} ]] "
            '&& verb="$verb ${typed[at+1]}" ;;',
            "  esac",
            '  case "$verb" in',
            f"    '') words='={' '.join(_first_words())}' ;;",
            *_families(),
            *_cases(),
            "  esac",
            "  if [[ $cur == -* && $words != - ]]; then",
            '    words="=$flags"',
            "  fi",
            '  case "$words" in',
            '    =*) mapfile -t COMPREPLY < <(compgen -W "${words#=}" -- "$cur") ;;',
            f'    {FILES}) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;',
            f"    {KEYS}|{CONTEXTS})",
            '      mapfile -t COMPREPLY < <(keyrack __complete "$words" "$cur" 2> /dev/null)',
            "      [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace",
            '      for i in "${!COMPREPLY[@]}"; do',
            "        printf -v 'COMPREPLY[i]' '%q' \"${COMPREPLY[i]}\"",
            "        # bash has cut the word at its last colon.",
            '        [[ $cur == *:* ]] && COMPREPLY[i]="${COMPREPLY[i]#"${cur%:*}:"}"',
            "      done",
            "      ;;",
            "  esac",
            "}",
            "complete -F _keyrack keyrack",
            "",
        )
    )


def _zsh() -> str:
    return "\n".join(
        (
            "#compdef keyrack",
            "# zsh completion of keyrack; load it with: source <(keyrack completion zsh)",
            "_keyrack() {",
            "  local cur before verb flags='' words_='' at=2",
            "  local -a found",
            '  cur="${words[CURRENT]}" before="${words[CURRENT-1]}"',
            '  (( CURRENT > 2 )) && verb="${words[2]}" || verb=""',
            "  if [[ $verb == help ]]; then",
            '    at=3; (( CURRENT > 3 )) && verb="${words[3]}" || verb=""',
            "  fi",
            '  case "$verb" in',
            f"    {'|'.join(table.FAMILIES)}) (( CURRENT > at + 1 )) "
            '&& verb="$verb ${words[at+1]}" ;;',
            "  esac",
            '  case "$verb" in',
            f"    '') words_='={' '.join(_first_words())}' ;;",
            *(line.replace("words=", "words_=") for line in _families()),
            *(line.replace("words=", "words_=") for line in _cases()),
            "  esac",
            "  if [[ $cur == -* && $words_ != - ]]; then",
            '    words_="=$flags"',
            "  fi",
            '  case "$words_" in',
            "    '='*) found=(${(s: :)words_#=}); compadd -- \"${found[@]}\" ;;",
            f"    {FILES}) _files ;;",
            f"    {KEYS}|{CONTEXTS})",
            '      found=("${(@f)$(keyrack __complete "$words_" "$cur" 2> /dev/null)}")',
            "      found=(${found:#})",
            '      compadd -S "" -- ${(M)found:#*/}',
            "      compadd -- ${found:#*/}",
            "      ;;",
            "  esac",
            "}",
            "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -u; }",
            "compdef _keyrack keyrack",
            "",
        )
    )


def _fish() -> str:
    lines = [
        "# fish completion of keyrack; load it with: keyrack completion fish | source",
        "function __keyrack_verb",
        "  set -l typed (commandline -opc)",
        "  set -e typed[1]",
        '  test "$typed[1]" = help; and set -e typed[1]',
        f'  if contains -- "$typed[1]" {" ".join(table.FAMILIES)}; and test (count $typed) -gt 1',
        '    echo "$typed[1] $typed[2]"',
        "  else",
        '    echo "$typed[1]"',
        "  end",
        "end",
        'function __keyrack_is; test (__keyrack_verb) = "$argv"; end',
        "function __keyrack_words; keyrack __complete $argv (commandline -ct) 2> /dev/null; end",
        "complete -c keyrack -f",
    ]
    for word, summary in _first_words().items():
        lines.append(f"complete -c keyrack -n '__keyrack_is \"\"' -a {word} -d {_quoted(summary)}")
    for family in table.FAMILIES:
        for word, summary in table.commands_of(family).items():
            condition = f"-n '__keyrack_is {family}'"
            lines.append(f"complete -c keyrack {condition} -a {word} -d {_quoted(summary)}")
    for verb, flags, kind in _rows():
        condition = f"-n '__keyrack_is {verb}'"
        if kind:
            lines.append(f"complete -c keyrack {condition} {_fish_words(kind)}")
        lines += [_fish_flag(condition, flag) for flag in flags]
    return "\n".join(lines) + "\n"


def _fish_words(kind: str) -> str:
    return "-F" if kind == FILES else f"-a '(__keyrack_words {kind})'"


def _fish_flag(condition: str, flag: Flag) -> str:
    names = " ".join(
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in flag.names
    )
    parts = [f"complete -c keyrack {condition} {names} -d {_quoted(flag.help)}"]
    if flag.takes:
        parts.append("-x" if flag.completes != FILES else "-r -F")
        if flag.choices:
            parts.append(f"-a '{' '.join(flag.choices)}'")
        elif flag.completes in (KEYS, CONTEXTS):
            parts.append(f"-a '(__keyrack_words {flag.completes})'")
    return " ".join(parts)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
