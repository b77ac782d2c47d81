"""The table of commands in `docs/upstash.md`, as they are."""

from __future__ import annotations

from typing import Final

from keyrack.compat.commands import COMMANDS

_BEGIN: Final = "<!-- commands: made by `python -m keyrack.compat.reference docs/upstash.md` -->"
_END: Final = "<!-- end of commands -->"


def markdown() -> str:
    """Return the commands as a Markdown table."""
    lines = ["| command | needs, where access is controlled | not as in Redis |", "|---|---|---|"]
    for one in COMMANDS.values():
        usage = f"{one.name} {one.usage}".strip().replace("|", "\\|")
        lines.append(f"| `{usage}` | {one.rights} | {one.differs} |")
    return "\n".join(lines)


def with_commands(page: str) -> str:
    """Return a Markdown page with the commands, as they are now, between its two marks."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n\n{markdown()}\n\n{_END}{after}"


if __name__ == "__main__":
    import sys
    from pathlib import Path

    path = Path(sys.argv[1])
    path.write_text(with_commands(path.read_text(encoding="utf-8")), encoding="utf-8")
