"""Everything that the help and docs/cli.md show can be typed as it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_support import shell

from keyrack.cli import table

if TYPE_CHECKING:
    from pathlib import Path

    from cli_support import Keyrack

VERBS = [verb for verb in table.VERBS if table.load(verb).examples]


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_of_a_verb_print_what_they_say(
    keyrack: Keyrack, verb: str, home: Path
) -> None:
    """One shell for a verb: later examples may build on earlier ones."""
    mark = "----- next"
    examples = table.load(verb).examples
    script = f"\necho '{mark}'\n".join(example.command for example in examples)
    ended = shell(script, keyrack.url, home)
    printed = ended.out.decode().split(f"{mark}\n")
    assert [text.rstrip("\n") for text in printed] == [one.prints for one in examples], ended
