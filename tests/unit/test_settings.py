"""Settings: where they come from, what is refused and how, and that the docs are complete."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest

from keyrack import settings
from keyrack.access import tokens
from keyrack.settings import ROWS, Settings, SettingsError, load
from keyrack.shared import units

ROOT = Path(__file__).parents[2]


def from_file(tmp_path: Path, text: str, **flags: Any) -> Settings:
    file = tmp_path / "keyrack.toml"
    file.write_text(text)
    return load({"config": str(file), **flags}, {})[0]


def refusal(flags: dict[str, object], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as caught:
        load(flags, environ or {})
    return str(caught.value)


# Where they come from


def test_without_anything_given_the_defaults_count() -> None:
    loaded, warnings = load({}, {})
    assert loaded == Settings()
    assert warnings == []
    assert (loaded.host, loaded.port, loaded.max_value) == ("127.0.0.1", 8088, 1 << 20)
    assert 1 <= loaded.workers <= 256


def test_a_flag_goes_before_a_variable_and_a_variable_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keyrack.toml"
    file.write_text('port = 1\nevents = 2\nmax_value = "3k"\nhost = "::1"')
    environ = {"KEYRACK_CONFIG": str(file), "KEYRACK_PORT": "4", "KEYRACK_EVENTS": "5"}
    loaded, _ = load({"port": "6"}, environ)
    assert (loaded.port, loaded.events, loaded.max_value, loaded.host) == (6, 5, 3072, "::1")


def test_every_setting_can_be_given_by_flag_and_variable_and_file(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    settings.add_flags(parser)
    for name, row in ROWS.items():
        if row.kind.expected == "a file that can be read" or name in (
            "data_dir",
            "token",
            "audit_log",
            "tls_client_required",
        ):
            continue  # most of these need another setting as well, or a value of their own shape
        default = getattr(Settings(), name)
        text = row.kind.show(default) if default not in (None, ()) else "9437184"
        text = "upstash" if name == "compat" else text
        text = "https://a.example" if name in ("cors_origins", "traces") else text
        text = {"on": "true", "off": "false"}.get(text, text)
        arguments = [settings.flag(name)] if row.kind.is_switch else [settings.flag(name), text]
        by_flag, _ = load(vars(parser.parse_args(arguments)), {})
        by_variable, _ = load({}, {settings.variable(name): text})
        by_file = from_file(tmp_path, f'{name} = "{text}"')
        assert getattr(by_variable, name) == getattr(by_file, name)
        assert getattr(by_flag, name) == (row.kind.is_switch or getattr(by_file, name))


def test_a_variable_set_to_nothing_counts_as_not_set() -> None:
    assert load({}, {"KEYRACK_STORE": "", "KEYRACK_PORT": ""}) == load({}, {})


def test_variables_that_kubernetes_makes_are_not_taken_for_settings() -> None:
    environ = {
        "KEYRACK_PORT": "tcp://10.0.0.1:8088",
        "KEYRACK_PORT_8088_TCP": "tcp://10.0.0.1:8088",
        "KEYRACK_PORT_8088_TCP_ADDR": "10.0.0.1",
        "KEYRACK_SERVICE_HOST": "10.0.0.1",
        "KEYRACK_SERVICE_PORT_HTTP": "8088",
        "KEYRACK_HEADLESS_SERVICE_HOST": "10.0.0.1",
        "KEYRACK_HEADLESS_PORT": "tcp://10.0.0.2:8088",
    }
    assert load({}, environ) == load({}, {})


def test_an_unknown_variable_is_warned_about_by_name() -> None:
    _, warnings = load({}, {"KEYRACK_MEMROY": "1g", "KEYRACK_URL": "x", "OTHER": "1"})
    assert len(warnings) == 1
    assert "KEYRACK_MEMROY" in warnings[0]
    assert "KEYRACK_MEMORY" in warnings[0]


# Kinds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8388608", 8 << 20),
        ("64m", 64 << 20),
        ("64M", 64 << 20),
        ("64MB", 64 << 20),
        ("1g", 1 << 30),
        ("9000KiB", 9000 << 10),
        ("8388608b", 8 << 20),
        ("1t", 1 << 40),
        ("1.5g", 1536 << 20),
        ("0.5GiB", 512 << 20),
        ("16.25m", 17_039_360),
    ],
)
def test_sizes_are_bytes_or_have_a_unit(text: str, size: int) -> None:
    assert load({"memory": text}, {})[0].memory == size


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "1.5", "1.g", "1.5b", "1 g", "1_0m", "64x", "٦٤m", "7m", "9e9"]
)
def test_what_is_no_size_or_too_small_is_refused(text: str) -> None:
    assert "is not a size of at least 8m" in refusal({"memory": text})


def test_a_size_that_can_be_switched_off_is_nothing_or_large_enough() -> None:
    assert [load({"slow_bytes": text}, {})[0].slow_bytes for text in ("0", "64k")] == [0, 65_536]
    expected = "is not 0, or a size of at least 64k"
    assert expected in refusal({"slow_bytes": "1"})
    assert expected in refusal({"slow_bytes": "65535"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("2.5", 2.5),
        ("90s", 90.0),
        ("1500ms", 1.5),
        ("5m", 300.0),
        ("1.5m", 90.0),
        ("1h", 3600.0),
        ("1H30M", 5400.0),
        ("1d", 86400.0),
    ],
)
def test_times_are_seconds_or_have_a_unit(text: str, seconds: float, tmp_path: Path) -> None:
    assert load({"keep_alive": text}, {})[0].keep_alive == seconds
    assert from_file(tmp_path, f'keep_alive = "{text}"').keep_alive == seconds


@pytest.mark.parametrize("text", ["s", "-1s", "5 m", "5x", "1e2", "5mm", "30m1h", "1h1h", "2d"])
def test_what_is_no_time_or_too_long_is_refused(text: str) -> None:
    said = refusal({"keep_alive": text})
    assert "is not a time from 1s to 1d, in seconds or like 90s, 5m, 1h" in said


@pytest.mark.parametrize(
    ("size", "text"),
    [(1536 << 20, "1.5g"), (64 << 20, "64m"), (1 << 30, "1g"), (1280, "1280"), (100_000, "100000")],
)
def test_a_size_is_told_as_one_would_write_it(size: int, text: str) -> None:
    assert units.shown_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(90.0, "90s"), (300.0, "5m"), (0.0, "0s"), (0.05, "0.05s"), (3600.0, "1h"), (86400.0, "1d")],
)
def test_a_time_is_told_as_one_would_write_it(seconds: float, text: str) -> None:
    assert units.shown_seconds(seconds) == text


@pytest.mark.parametrize(
    ("text", "on"), [("1", True), ("true", True), ("YES", True), ("0", False), ("no", False)]
)
def test_switches_are_words(text: str, on: bool) -> None:
    assert load({}, {"KEYRACK_ACCESS_LOG": text})[0].access_log is on


def test_a_list_has_commas_or_is_a_list_in_the_file(tmp_path: Path) -> None:
    expected = ("a.example", ".internal", "*")
    assert load({"allowed_hosts": "a.example, .internal,*"}, {})[0].allowed_hosts == expected
    in_file = from_file(tmp_path, 'allowed_hosts = ["a.example", ".internal", "*"]')
    assert in_file.allowed_hosts == expected


def test_the_file_may_use_its_own_types(tmp_path: Path) -> None:
    loaded = from_file(tmp_path, "port = 0\nkeep_alive = 2.5\nmemory = 8388608\naccess_log = true")
    assert (loaded.port, loaded.keep_alive, loaded.memory) == (0, 2.5, 8 << 20)
    assert loaded.access_log is True


def test_an_ipv6_address_may_stand_in_brackets() -> None:
    assert load({"host": "[::1]"}, {})[0].host == "::1"


# Refusals


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("port", "65536"),
        ("port", "-1"),
        ("port", "8_0"),
        ("port", "80.0"),
        ("port", "٨٠"),
        ("workers", "0"),
        ("workers", "257"),
        ("keep_alive", "nan"),
        ("keep_alive", "1e2"),
        ("keep_alive", "0"),
        ("log_level", "loud"),
        ("access_log", "maybe"),
        ("host", "http://a"),
        ("host", "a b"),
        ("allowed_hosts", "a.example:8088"),
        ("allowed_hosts", "a,,b"),
        ("store", "a\0b"),
        ("tls_cert", "/no/such/file"),
    ],
)
def test_a_refusal_names_the_variable_the_value_and_what_was_expected(name: str, text: str) -> None:
    said = refusal({}, {settings.variable(name): text})
    assert said == f"{settings.variable(name)}={text!r} is not {ROWS[name].kind.expected}."


@pytest.mark.parametrize("text", ["port = true", "port = 1.0", "port = [1]", "port = {}"])
def test_a_wrong_type_in_the_file_is_refused_with_the_file_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"port = .* in '.*keyrack.toml' is not a whole number"):
        from_file(tmp_path, text)


@pytest.mark.parametrize("text", ["keep_alive = nan", "keep_alive = inf", "keep_alive = 1e400"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="is not a time from"):
        from_file(tmp_path, text)


def test_an_unknown_key_of_the_file_is_refused_with_the_one_that_may_be_meant(
    tmp_path: Path,
) -> None:
    with pytest.raises(SettingsError, match=r"'max-value' in .* \(is 'max_value' meant"):
        from_file(tmp_path, 'max-value = "1m"')


@pytest.mark.parametrize("text", ["port = ", "\xff".encode("latin-1")])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    assert "is not TOML" in refusal({"config": str(file)})


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal({"config": str(tmp_path / "none")})


def test_a_value_with_control_characters_is_shown_escaped() -> None:
    assert "'\\x1b[2J'" in refusal({}, {"KEYRACK_PORT": "\x1b[2J"})


# Settings that depend on each other


def test_a_body_limit_that_nobody_chose_follows_the_value_limit() -> None:
    assert load({"max_value": "16m"}, {})[0].max_body == 16 << 20


def test_a_body_limit_below_the_value_limit_is_refused_with_both_sources() -> None:
    said = refusal({"max_body": "2m"}, {"KEYRACK_MAX_VALUE": "3m"})
    assert "--max-body '2m'" in said
    assert "KEYRACK_MAX_VALUE='3m'" in said


def test_settings_made_by_a_program_hold_to_the_same_rule() -> None:
    with pytest.raises(SettingsError):
        Settings(max_value=2, max_body=1)


def test_a_certificate_without_a_key_is_refused() -> None:
    assert "needs both --tls-cert and --tls-key" in refusal({"tls_cert": __file__})


def test_files_that_are_no_certificate_are_refused() -> None:
    said = refusal({"tls_cert": __file__, "tls_key": __file__})
    assert "are not a certificate and its unencrypted private key" in said


def test_an_encrypted_key_is_refused_without_asking_for_its_password(tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -keyout key -out cert -subj /CN=a -passout pass:a"
    try:
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    said = refusal({"tls_cert": str(tmp_path / "cert"), "tls_key": str(tmp_path / "key")})
    assert "unencrypted private key" in said


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


# Showing


def test_the_committed_page_is_what_the_table_says() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == settings.markdown(), "run: python -m keyrack.settings > docs/settings.md"


def test_the_help_names_every_flag_and_variable() -> None:
    parser = argparse.ArgumentParser()
    settings.add_flags(parser)
    text = parser.format_help()
    for name in ROWS:
        assert settings.flag(name) in text
        assert settings.variable(name) in text


def test_eviction_is_refused_for_a_store_that_is_elsewhere() -> None:
    for policy in ({}, {"when_full": "reject"}):
        load({"engine": "valkey://localhost", **policy}, {})
    with pytest.raises(SettingsError, match=r"--when-full 'evict' is for .*--valkey-may-evict"):
        load({"engine": "valkey://localhost", "when_full": "evict"}, {})


# Access


def test_a_token_can_be_given_and_is_never_shown() -> None:
    text = tokens.new().text
    assert load({}, {"KEYRACK_TOKEN": text})[0].token == text
    told = refusal({}, {"KEYRACK_TOKEN": text[:-1]})
    assert text[8:30] not in told
    assert "KEYRACK_TOKEN='***' is not a whole token" in told
    assert "not both" in refusal({"token": text, "token_file": "f"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST."])
def test_everybody_may_be_served_on_an_address_that_only_this_machine_reaches(host: str) -> None:
    settings.refuse_open_network(load({"host": host}, {})[0])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "keyrack.internal", "fe80::1%eth0"])
def test_on_any_other_address_it_has_to_be_said_who_may(host: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.refuse_open_network(load({"host": host}, {})[0])
    told = str(caught.value)
    assert "--auth FILE" in told
    assert "KEYRACK_TOKEN" in told
    assert "--auth none" in told
    for said in ({"auth": "none"}, {"auth": "auth.toml"}, {"token": tokens.new().text}):
        settings.refuse_open_network(load({"host": host, **said}, {})[0])
    settings.refuse_open_network(load({"host": host, "uds": "/run/k"}, {})[0])


def test_a_token_or_a_file_counts_more_than_none() -> None:
    assert not load({}, {})[0].controls_access
    assert not load({"auth": "none"}, {})[0].controls_access
    assert load({"auth": "none", "token": tokens.new().text}, {})[0].controls_access
    assert load({"auth": "none", "token_file": "f"}, {})[0].controls_access
    loaded, _ = load({"auth": "auth.toml"}, {})
    assert loaded.controls_access
    assert loaded.auth_file == "auth.toml"
    assert load({"auth": "none"}, {})[0].auth_file is None
