"""The operator's file: what it can say, and how its mistakes are told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from keyrack.access import file, tokens, writing
from keyrack.access.changes import FileWatch
from keyrack.access.file import load, parse
from keyrack.access.model import Certificate, Claims, Peer, Policy, Rate, Token
from keyrack.access.sections import AccessFileError

if TYPE_CHECKING:
    from pathlib import Path

HASH = "sha256:" + "0a" * 32
WHOLE = f"""\
version = 1
anonymous = ["public"]

[policies]
public = ["read keys:public/*"]
app = ["all keys:app/*", "deny all keys:app/secret/*"]

[policies.metered]
rules = ["read keys:*"]
rate = "200/s burst 400"
watches = 3

[[tokens]]
id = "3fK9aZ01"
hash = "{HASH}"
name = "billing"
policies = ["app"]
expires = 2027-06-01T00:00:00Z
from = ["10.0.0.0/8"]

[[certificates]]
san = "spiffe://prod/cart"
policies = ["app"]

[[peers]]
uid = 1000
policies = ["admin"]

[[issuers]]
issuer = "https://kubernetes.default.svc"
audience = "keyrack"
jwks = "jwks.json"
algorithms = ["RS256"]
  [[issuers.map]]
  claims = {{ sub = "system:serviceaccount:shop:cart" }}
  policies = ["app"]
"""


def test_a_file_says_who_may_log_in() -> None:
    access = parse(WHOLE)
    assert access.anonymous == ("public",)
    assert access.policies["app"] == Policy(("all keys:app/*", "deny all keys:app/secret/*"))
    assert access.policies["metered"] == Policy(("read keys:*",), Rate(200, 400), 3)
    assert access.tokens == (
        Token("3fK9aZ01", HASH, "billing", ("app",), expires=1811808000.0, sources=("10.0.0.0/8",)),
    )
    assert access.certificates == (Certificate("spiffe://prod/cart", ("app",)),)
    assert access.peers == (Peer(1000, None, ("admin",)),)
    claims = Claims({"sub": "system:serviceaccount:shop:cart"}, ("app",))
    assert access.issuers[0].map == (claims,)


def line(number: int, sentence: str) -> str:
    return f"auth.toml, line {number}: {sentence}"


@pytest.mark.parametrize(
    ("written", "instead", "told"),
    [
        ("version = 1", "", line(1, "the file says `version = 1`")),
        ("version = 1", "version = 2", line(1, "the file says `version = 1`")),
        ("version = 1", "version = true", line(1, "the file says `version = 1`")),
        ("anonymous", "anonymus", line(2, "'anonymus' means nothing in the file")),
        ('["public"]', '["publik"]', line(2, "there is no policy 'publik'; there are admin")),
        ('["public"]', '"public"', line(2, "`anonymous` is a list of texts")),
        ("read keys:public/*", "raed keys:public/*", line(5, "'raed keys:public/*': 'raed'")),
        ("public =", "admin =", line(5, "'admin' is a policy that every service has")),
        ("app =", '"my app" =', line(6, "'my app' is no name for a policy")),
        ("all keys:app/*", "all key:app/*", line(6, "'all key:app/*': a pattern begins with")),
        ("rate =", "rates =", line(10, "'rates' means nothing in the policy 'metered'")),
        ("200/s burst 400", "fast", line(10, "'fast' is no rate like")),
        ("watches = 3", "watches = -1", line(11, "`watches` is a whole number")),
        ("[[tokens]]", "[[token]]", line(13, "'token' means nothing in the file")),
        ("3fK9aZ01", "3fK9", line(14, "`id` of the token '3fK9' is 8 letters and digits")),
        (HASH, "krk_secret", line(15, "`hash` of the token '3fK9aZ01' is `sha256:`")),
        ('"billing"', '""', line(16, "'' is no name for a token")),
        ('"billing"', "7", line(16, "`name` is a text")),
        ("2027-06-01T00:00:00Z", "2027-06-01", line(18, "`expires` is a moment like")),
        ("2027-06-01T00:00:00Z", '"soon"', line(18, "`expires` is a moment like")),
        ("10.0.0.0/8", "10.0.0.1/8", line(19, "'10.0.0.1/8' is no network like")),
        ("san =", "sans =", line(22, "'sans' means nothing in each of `certificates`")),
        ("uid = 1000", "", line(25, "a peer has a `uid`, a `gid` or both")),
        ('["RS256"]', '["HS256"]', line(33, "'HS256' is not allowed")),
        ('["RS256"]', '["none"]', line(33, "'none' is not allowed")),
        ('["RS256"]', "[]", line(33, "`algorithms` names at least one")),
        ("jwks.json", "http://x/jwks", line(32, "`jwks` of the issuer")),
        ("claims = { sub", "claim = { sub", line(35, "'claim' means nothing")),
        ('{ sub = "system:serviceaccount:shop:cart" }', "{}", line(35, "`claims` is like")),
        ("id = ", "hash_next = ", line(14, "`hash_next` and `not_after` go together")),
    ],
)
def test_a_mistake_is_told_with_its_line(written: str, instead: str, told: str) -> None:
    with pytest.raises(AccessFileError) as caught:
        parse(WHOLE.replace(written, instead, 1), "auth.toml")
    assert str(caught.value).startswith(told)


def test_a_token_or_hash_that_is_there_twice_is_told_with_both_lines() -> None:
    again = f'[[tokens]]\nid = "3fK9aZ01"\nhash = "sha256:{"1b" * 32}"\n'
    with pytest.raises(AccessFileError, match="line 38: the id '3fK9aZ01' is that of line 14"):
        parse(WHOLE + again, "auth.toml")
    again = f'[[tokens]]\nid = "AAAAAAAA"\nhash = "{HASH}"\n'
    with pytest.raises(AccessFileError, match=r"line 39: the hash .* is that of line 15"):
        parse(WHOLE + again, "auth.toml")


def test_too_many_rules_of_several_policies_are_refused_together() -> None:
    many = ", ".join(f'"read keys:{n}"' for n in range(150))
    more = ", ".join(f'"read keys:x{n}"' for n in range(150))
    text = WHOLE.replace("[policies]\n", f"[policies]\na = [{many}]\nb = [{more}]\n")
    parse(text)
    with pytest.raises(AccessFileError, match="at most 200 rules; these are 300"):
        parse(text.replace('policies = ["app"]', 'policies = ["a", "b"]', 1))


def test_what_is_no_toml_is_told_with_its_line() -> None:
    with pytest.raises(AccessFileError, match=r"is no TOML: .*line 2"):
        parse("version = 1\nanonymous = [}\n")


# The file itself


@pytest.fixture
def path(tmp_path: Path) -> str:
    made = tmp_path / "auth.toml"
    made.write_text(WHOLE)
    made.chmod(0o600)
    (tmp_path / "jwks.json").write_text('{"keys":[]}')
    return str(made)


def test_a_file_is_loaded_with_what_it_names(path: str) -> None:
    loaded = load(path)
    assert loaded.access.issuers[0].keys == '{"keys":[]}'
    assert loaded.files == (path, os.path.join(os.path.dirname(path), "jwks.json"))
    assert loaded.warnings == []


def test_a_file_that_everybody_reads_is_warned_about_and_one_that_everybody_writes_refused(
    path: str,
) -> None:
    os.chmod(path, 0o644)
    assert "may be read by everybody" in load(path).warnings[0]
    os.chmod(path, 0o622)
    with pytest.raises(AccessFileError, match="may be written by everybody"):
        load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_refused(path: str) -> None:
    os.chown(path, 12345, -1)
    with pytest.raises(AccessFileError, match="belongs to user 12345"):
        load(path)


def test_a_file_that_is_missing_or_is_none_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(AccessFileError, match="No such file"):
        load(str(tmp_path / "other.toml"))
    with pytest.raises(AccessFileError, match="is no file"):
        load(str(tmp_path))
    os.unlink(tmp_path / "jwks.json")
    with pytest.raises(AccessFileError, match=r"jwks\.json cannot be read"):
        load(path)
    (tmp_path / "jwks.json").write_text("[]")
    with pytest.raises(AccessFileError, match="is no JSON Web Key Set"):
        load(path)


def test_every_cut_of_a_file_is_refused_or_says_less() -> None:
    whole = parse(WHOLE)
    for end in range(len(WHOLE)):
        try:
            cut = parse(WHOLE[:end])
        except AccessFileError:
            continue
        assert len(cut.tokens) <= len(whole.tokens)


# Changes


def looks(watch: FileWatch) -> list[bool]:
    return [watch.changed() for _ in range(3)]


def test_a_change_is_noticed_once_when_it_is_over(path: str) -> None:
    watch = FileWatch([path])
    assert looks(watch) == [False, False, False]
    for _ in range(5):
        with open(path, "a") as opened:
            opened.write("\n")
        assert not watch.changed()  # somebody is writing
    assert looks(watch) == [True, False, False]


def test_a_file_that_is_as_it_was_after_all_has_not_changed(path: str, tmp_path: Path) -> None:
    watch = FileWatch([path])
    os.rename(path, tmp_path / "away")
    assert not watch.changed()
    os.rename(tmp_path / "away", path)
    assert looks(watch) == [False, False, False]


def test_a_file_that_takes_another_one_s_place_is_noticed(path: str, tmp_path: Path) -> None:
    watch = FileWatch([path])
    kept = os.stat(path)
    other = tmp_path / "other"
    other.write_text(WHOLE)
    os.utime(other, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    os.rename(other, path)
    assert looks(watch) == [False, True, False]
    os.unlink(path)
    assert looks(watch) == [False, True, False]


def test_a_symbolic_link_some_directories_up_that_is_swapped_is_noticed(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "auth.toml").write_text(WHOLE)
    data, seen = tmp_path / "..data", tmp_path / "auth.toml"
    data.symlink_to("old")
    seen.symlink_to("..data/auth.toml")
    watch = FileWatch([str(seen)])
    swapped = tmp_path / "..tmp"
    swapped.symlink_to("new")
    swapped.rename(data)
    assert looks(watch) == [False, True, False]


def test_files_that_are_looked_at_from_now_on_have_not_changed(path: str, tmp_path: Path) -> None:
    watch = FileWatch([path])
    watch.follow([path, str(tmp_path / "jwks.json")])
    assert looks(watch) == [False, False, False]
    (tmp_path / "jwks.json").write_text('{"keys":[{}]}')
    assert looks(watch) == [False, True, False]


# Writing


def made(**more: object) -> Token:
    fields = {"name": 'a "b" \\ é', "rules": ("read keys:x",), **more}
    new = tokens.new()
    return Token(new.id, new.hash, **fields)  # type: ignore[arg-type]  # its fields


def test_a_token_is_added_and_everything_else_stays_as_it_is_written(path: str) -> None:
    token = made(
        expires=1811808000.0,
        disabled=True,
        rate=Rate(1.5, 3),
        watches=2,
        sources=("10.0.0.0/8",),
        created=1800000000.0,
        created_by="me",
        hash_next=HASH.replace("0a", "cc"),
        not_after=1811808001.0,
    )
    writing.add(path, token)
    with open(path) as opened:
        assert opened.read().startswith(WHOLE)
    assert load(path).access.tokens[1] == token


def test_a_file_that_is_missing_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "new.toml")
    token = made()
    writing.add(path, token)
    assert load(path).access.tokens == (token,)
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_token_is_replaced_and_removed_where_it_is(path: str) -> None:
    first, second = made(), made()
    writing.add(path, first)
    with open(path, "a") as opened:
        opened.write("\n# about the next\n")
    writing.add(path, second)
    writing.replace(path, Token(first.id, first.hash, "other"))
    assert [one.name for one in load(path).access.tokens] == ["billing", "other", second.name]
    with open(path) as opened:
        assert "# about the next\n" in opened.read()
    writing.remove(path, first.id)
    assert [one.name for one in load(path).access.tokens] == ["billing", second.name]
    with pytest.raises(AccessFileError, match="has no section"):
        writing.remove(path, first.id)


def test_what_cannot_be_used_is_not_written(path: str) -> None:
    with pytest.raises(AccessFileError, match="is that of line 14"):
        writing.add(path, Token("3fK9aZ01", HASH.replace("0a", "dd")))
    with open(path) as opened:
        assert opened.read() == WHOLE


def test_through_a_link_the_file_itself_is_replaced_and_keeps_its_mode(
    path: str, tmp_path: Path
) -> None:
    os.chmod(path, 0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    writing.add(str(link), made())
    assert link.is_symlink()
    assert len(load(path).access.tokens) == 2
    assert os.stat(path).st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["auth.toml", "jwks.json", "link.toml"]


def test_a_file_that_is_mounted_by_itself_says_what_to_do(
    path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def busy(source: str, target: str) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(os, "rename", busy)
    with pytest.raises(AccessFileError, match="mount the directory"):
        writing.add(path, made())
    assert sorted(os.listdir(tmp_path)) == ["auth.toml", "jwks.json"]


def test_only_signatures_without_a_shared_secret_are_allowed() -> None:
    assert not any(one.startswith("HS") or one == "none" for one in file.ALGORITHMS)
