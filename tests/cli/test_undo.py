"""`keyrack undo`, and that `keyrack del` says how."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli_support import Keyrack


def number_in(text: str) -> str:
    """Return the number that a removal has printed."""
    found = re.search(r"To put it back: keyrack undo (\d+)", text)
    assert found is not None, text
    return found[1]


def test_a_key_is_removed_and_put_back(keyrack: Keyrack) -> None:
    keyrack.out("set", "a", "1")
    removed = keyrack("del", "a")
    assert removed.code == 0
    assert keyrack("get", "a").code == 1
    assert keyrack.out("undo", number_in(removed.err)) == "1 key put back\n"
    assert keyrack.out("get", "a").strip() == "1"


def test_several_keys_are_put_back_together(keyrack: Keyrack) -> None:
    for key in "ab":
        keyrack.out("set", key, key)
    removed = keyrack("del", "a", "b", "c")
    assert removed.code == 1
    assert keyrack.out("undo", number_in(removed.err)) == "2 keys put back\n"
    assert keyrack.out("get", "b").strip() == "b"


def test_a_prefix_is_put_back_by_who_names_no_number(keyrack: Keyrack) -> None:
    for key in ("p/1", "p/2", "q"):
        keyrack.out("set", key, "x")
    keyrack.out("del", "q")
    removed = keyrack("del", "--prefix", "p/", "--yes")
    assert b"2 keys removed" in removed.out
    keyrack.out("set", "p/1", "newer")
    said = keyrack.out("undo")
    assert said == "1 key put back, 1 exist by now and were left alone\n"
    assert keyrack.out("get", "p/1").strip() == "newer"
    assert keyrack("get", "q").code == 1


def test_what_can_be_undone_is_listed(keyrack: Keyrack) -> None:
    for key in ("p/1", "p/2", "one\x1b"):
        keyrack.out("set", "--", key, "x")
    prefix = number_in(keyrack("del", "--prefix", "p/", "--yes").err)
    key = number_in(keyrack("del", "--", "one\x1b").err)
    first, second = keyrack.out("undo", "--list", "--limit", "2").splitlines()
    assert first.startswith(f"{key}  1 key  until 20")
    assert first.endswith(r"  one\e")
    assert second.startswith(f"{prefix}  2 keys  until 20")
    assert second.endswith("  all that begins with p/")
    shown = json.loads(keyrack.out("undo", "--list", "--limit", "1", "-o", "json"))
    assert [str(one["undo"]) for one in shown["undos"]] == [key]


def test_who_wants_to_remove_for_good_says_so(keyrack: Keyrack) -> None:
    for command in (("del", "a"), ("del", "a", "b"), ("del", "--prefix", "a", "--yes")):
        keyrack.out("set", "a", "1")
        assert "undo" not in keyrack(*command, "--no-undo").err
        assert keyrack("get", "a").code == 1


def test_how_long_it_can_be_undone_can_be_said(keyrack: Keyrack) -> None:
    keyrack.out("set", "a", "1")
    number = number_in(keyrack("del", "a", "--undo", "1d").err)
    assert keyrack.out("undo", "--list", "--limit", "1").startswith(number)
    assert keyrack("del", "a", "--undo", "8d").code != 0


def test_what_cannot_be_undone_says_so(keyrack: Keyrack) -> None:
    unknown = keyrack("undo", "17")
    assert unknown.code == 1
    assert "There is no removal 17 that could be undone (any more)." in unknown.err
    assert keyrack("undo", "--list", "17").code == 2
    assert keyrack("undo", "x").code == 2


def test_json_has_the_number_too(keyrack: Keyrack) -> None:
    keyrack.out("set", "p/1", "1")
    shown = json.loads(keyrack("del", "--prefix", "p/", "--yes", "-o", "json").out)
    done = json.loads(keyrack.out("undo", str(shown["undo"]), "-o", "json"))
    assert (done["restored"], done["kept_newer"], done["ended"], done["gone"]) == (1, 0, 0, 0)
