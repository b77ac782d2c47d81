"""The text of tokens: its shape, its checksum, what is kept of it."""

from __future__ import annotations

import binascii
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyrack.access import tokens
from keyrack.access.tokens import MalformedToken

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_token_has_fifty_one_characters_and_tells_its_id() -> None:
    made = tokens.new()
    assert len(made.text) == 51
    assert made.text.startswith("krk_" + made.id)
    assert tokens.id_of(made.text) == made.id
    assert tokens.is_id(made.id)


def test_the_last_six_characters_are_the_crc32_of_the_rest_in_base62() -> None:
    text = tokens.new().text
    body, check = text[4:45], text[45:]
    number = 0
    for digit in check:
        number = number * 62 + _BASE62.index(digit)
    assert number == binascii.crc32(body.encode())


def test_what_is_kept_is_the_hash_of_the_whole_text() -> None:
    made = tokens.new()
    assert made.hash == "sha256:" + hashlib.sha256(made.text.encode()).hexdigest()
    assert tokens.is_digest(made.hash)
    assert not tokens.is_digest(made.hash.upper())


def test_a_new_text_of_a_token_keeps_its_id() -> None:
    first = tokens.new()
    again = tokens.new(first.id)
    assert again.id == first.id
    assert again.text != first.text


def test_no_two_tokens_are_alike() -> None:
    assert len({tokens.new().text for _ in range(1000)}) == 1000


@given(st.integers(4, 50), st.sampled_from(_BASE62))
def test_one_wrong_character_is_noticed_without_a_look_up(place: int, character: str) -> None:
    text = "krk_3fK9aZ01" + "a" * 33
    text += tokens.checksum(text[4:])
    wrong = text[:place] + character + text[place + 1 :]
    if wrong == text:
        assert tokens.id_of(wrong) == "3fK9aZ01"
    else:
        with pytest.raises(MalformedToken):
            tokens.id_of(wrong)


@pytest.mark.parametrize("text", ["", "krk_", "password", "krk_" + "a" * 46, "krk_" + "é" * 47])
def test_what_is_no_token_is_malformed(text: str) -> None:
    with pytest.raises(MalformedToken):
        tokens.id_of(text)


def test_a_token_that_was_cut_off_or_has_something_behind_it_is_malformed() -> None:
    text = tokens.new().text
    for wrong in (text[:-1], text + "0", text + "\n", " " + text, text.upper()):
        with pytest.raises(MalformedToken):
            tokens.id_of(wrong)
