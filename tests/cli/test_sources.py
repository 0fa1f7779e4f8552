"""The settings of the command line from options, the environment and a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from wsframe.cli import serve
from wsframe.cli.options import PREFIX, SETTINGS, argument_parser
from wsframe.cli.sources import Configuration, resolve
from wsframe.server.reports.loggers import log

# A value of each setting as text, and in a TOML file.
SAMPLES = {
    "app": ("shop:app", '"shop:app"'),
    "host": ("::1", '"::1"'),
    "port": ("8000", "8000"),
    "workers": ("2", "2"),
    "fds": ("3,4", "[3, 4]"),
    "unix": ("shop.sock", '"shop.sock"'),
    "unix_mode": ("660", "0o660"),
    "unix_group": ("0", "0"),
    "cert": ("cert.pem", '"cert.pem"'),
    "key": ("key.pem", '"key.pem"'),
    "client_ca": ("ca.pem", '"ca.pem"'),
    "client_cert": ("optional", '"optional"'),
    "hosts": ("a.example,*.b.example", '["a.example", "*.b.example"]'),
    "headers": ("X-A: b\nX-C: d", '{"X-A" = "b", X-C = "d"}'),
    "trusted_proxies": ("10.0.0.0/8,unix", '["10.0.0.0/8", "unix"]'),
    "proxy_protocol": ("10.0.0.0/8,unix", '["10.0.0.0/8", "unix"]'),
    "max_connections": ("12", "12"),
    "max_handshakes_per_address": ("4", "4"),
    "max_subscriptions": ("7", "7"),
    "max_head_size": ("32768", "32768"),
    "max_headers": ("200", "200"),
    "max_kept_head": ("5000", "5000"),
    "socket_buffer": ("16384", "16384"),
    "topic_memory": ("1000000", "1000000"),
    "loops": ("2", "2"),
    "max_threads": ("3", "3"),
    "max_handler_threads": ("30", "30"),
    "reserve_threads": ("4", "4"),
    "max_thread_share": ("0.75", "0.75"),
    "thread_timeout": ("1.5", "1.5"),
    "worker_timeout": ("12.5", "12.5"),
    "handshake_timeout": ("7", "7"),
    "message_timeout": ("12.5", "12.5"),
    "send_timeout": ("8.25", "8.25"),
    "close_timeout": ("9", "9.0"),
    "ping_interval": ("10", "10"),
    "ping_timeout": ("11", "11"),
    "heartbeat": ("0", "0"),
    "heartbeat_event": ("beat", '"beat"'),
    "retry": ("3.5", "3.5"),
    "max_connection_age": ("3600", "3600"),
    "drain": ("0.5", "0.5"),
    "stop_delay": ("2.5", "2.5"),
    "redis": ("redis://:secret@localhost", '"redis://:secret@localhost"'),
    "redis_file": ("url", '"url"'),
    "redis_prefix": ("shop:", '"shop:"'),
    "reload": ("yes", "true"),
    "access_log": ("yes", "true"),
    "log_level": ("info", '"INFO"'),
    "log_format": ("json", '"json"'),
    "metrics": ("/metrics", '"/metrics"'),
    "health": ("/health", '"/health"'),
    "ready": ("/ready", '"/ready"'),
}


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, without variables of the server."""
    for name in tuple(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resolved(*arguments: str) -> Configuration:
    """Return the settings for a command line."""
    options = argument_parser("wsframe serve").parse_args(arguments)
    return resolve(options, tuple(SETTINGS.values()))


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the only line of the error for a command line."""
    with pytest.raises(SystemExit) as exit_:
        serve.main(arguments, "serve")
    assert exit_.value.code == 2
    return capsys.readouterr().err.splitlines()[-1].removeprefix("serve: error: ")


def test_lists_may_be_repeated() -> None:
    found = resolved(
        *("--hosts=a.example,b.example", "--hosts=c.example"),
        *("--fd=3", "--fd=4,5"),
        *("--trusted-proxy=10.0.0.0/8", "--trusted-proxy=::1"),
    )
    assert found["hosts"] == ["a.example", "b.example", "c.example"]
    assert found["fds"] == [3, 4, 5]
    assert found["trusted_proxies"] == ["10.0.0.0/8", "::1"]


def test_every_setting_has_the_same_value_from_each_source(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "url").write_text("redis://localhost/7\n")
    assert SAMPLES.keys() == SETTINGS.keys()
    for name, (text, toml) in SAMPLES.items():
        flag = SETTINGS[name].flag or ""
        option = flag if text == "yes" else f"{flag}={text}"
        from_option = resolved(option if flag else text)
        with monkeypatch.context() as patch:
            patch.setenv(f"WSFRAME_{name.upper()}", text)
            from_environment = resolved()
        (directory / "shop.toml").write_text(f"{name} = {toml}\n")
        from_file = resolved("--config", "shop.toml")
        assert from_option.values == from_environment.values == from_file.values, name
        assert from_option.values != resolved().values, name


def test_headers_are_lines_or_a_table(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = "--header=X-A: b: c", "--header= X-D :", "--header=X-A:2"
    assert resolved(*given)["headers"] == [("X-A", "b: c"), ("X-D", ""), ("X-A", "2")]
    (directory / "shop.toml").write_text('[headers]\nX-A = "b"\nX-C = "d: e"\n')
    monkeypatch.setenv("WSFRAME_CONFIG", "shop.toml")
    assert resolved()["headers"] == [("X-A", "b"), ("X-C", "d: e")]
    (directory / "shop.toml").write_text('headers = "X-A: b"\n')
    assert resolved()["headers"] == [("X-A", "b")]


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("{X-A = 1}", "expected a string without line breaks for X-A: 1"),
        ('{X-A = "b\\nX-C: d"}', r"expected a string without line breaks for X-A: 'b\nX-C: d'"),
        ('{X-A = "b\\rc"}', r"a header must not contain control characters: X-A: 'b\rc'"),
        ("[]", "expected a table or a string, got an array []"),
    ],
)
def test_headers_of_a_file_are_checked(
    directory: Path, capsys: pytest.CaptureFixture[str], toml: str, message: str
) -> None:
    (directory / "shop.toml").write_text(f"headers = {toml}\n")
    assert error(capsys, "--config", "shop.toml") == f"shop.toml: headers: {message}"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("X-A", "expected NAME: VALUE, got 'X-A'"),
        ("X A: b", "a header name must be a token: 'X A'"),
        ("Date: now", "header Date is set by the server"),
    ],
)
def test_header_options_are_checked(
    capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    assert error(capsys, f"--header={option}") == f"argument --header: {message}"


def test_options_precede_the_environment_which_precedes_the_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "shop.toml").write_text("port = 1\ndrain = 1\nheartbeat = 1\nloops = 1\n")
    monkeypatch.setenv("WSFRAME_CONFIG", "shop.toml")
    monkeypatch.setenv("WSFRAME_PORT", "2")
    monkeypatch.setenv("WSFRAME_DRAIN", "2")
    monkeypatch.setenv("WSFRAME_LOOPS", "")  # as if it were not set
    monkeypatch.setenv("WSFRAME_PURE", "1")  # not a setting
    found = resolved("--port", "3")
    assert [found[name] for name in ("port", "drain", "heartbeat", "loops")] == [3, 2.0, 1.0, 1]
    assert found["retry"] == SETTINGS["retry"].default
    monkeypatch.setenv("WSFRAME_CONFIG", "")  # no file
    assert resolved()["heartbeat"] == SETTINGS["heartbeat"].default
    monkeypatch.setenv("WSFRAME_CONFIG", "shop.toml")
    monkeypatch.setenv("WSFRAME_RELOAD", "Off")
    assert resolved()["reload"] is False
    monkeypatch.setenv("WSFRAME_ACCESS_LOG", "on")
    assert (resolved()["access_log"], resolved("--no-access-log")["access_log"]) == (True, False)
    (directory / "shop.toml").write_text("trusted_proxies = []")
    assert resolved()["trusted_proxies"] == []
    assert found.sources == {
        "port": "--port",
        "drain": "WSFRAME_DRAIN",
        "heartbeat": "shop.toml: heartbeat",
        "loops": "shop.toml: loops",
    }


# The content of a file, variables of the environment, and the error.
FAULTS: list[tuple[str, Mapping[str, str], str]] = [
    (
        "ping-interval = 3",
        {},
        "shop.toml: 'ping-interval' is not a setting of wsframe; did you mean ping_interval?",
    ),
    ("xyz = 1", {}, "shop.toml: 'xyz' is not a setting of wsframe"),
    ("[xyz]", {}, "shop.toml: settings are not in tables: remove [xyz]"),
    ("loops = '2'", {}, "shop.toml: loops: expected an integer, got a string '2'"),
    ("loops = true", {}, "shop.toml: loops: expected an integer, got a boolean True"),
    ("loops = -1", {}, "shop.toml: loops: expected a non-negative integer, got '-1'"),
    ("drain = 'x'", {}, "shop.toml: drain: expected an integer or a float, got a string 'x'"),
    (
        "drain = inf",
        {},
        "shop.toml: drain: expected a finite number of seconds that is at least 0, got 'inf'",
    ),
    ("port = 2026-01-01", {}, "shop.toml: port: expected an integer, got a time "),
    ("hosts = 1", {}, "shop.toml: hosts: expected a string or an array, got an integer 1"),
    (
        "unix_mode = 660",
        {},
        'shop.toml: unix_mode: expected permissions in octal such as 0o660 or "660", got the '
        "decimal number 660",
    ),
    ("unix_mode = -1", {}, "shop.toml: unix_mode: expected permissions in octal such as 0o660"),
    ("unix_mode = 'rw'", {}, "shop.toml: unix_mode: expected permissions in octal such as 660, "),
    ("redis = ['redis://:secret@a']", {}, "shop.toml: redis: expected a string, got an array"),
    ("log_level = 'x'", {}, "shop.toml: log_level: expected one of debug, info, warning, error, "),
    ("access_log = 1", {}, "shop.toml: access_log: expected a boolean, got an integer 1"),
    ("loops = ", {}, "shop.toml is not valid TOML: Invalid value (at "),
    (
        "",
        {"WSFRAME_PINGINTERVAL": "3"},
        "the variable WSFRAME_PINGINTERVAL is not a setting of wsframe; "
        "did you mean WSFRAME_PING_INTERVAL?",
    ),
    (
        "",
        {"WSFRAME_PORT": "tcp://10.0.0.1:80"},
        "WSFRAME_PORT: expected a port from 0 to 65535, got 'tcp://10.0.0.1:80'",
    ),
    (
        "",
        {"WSFRAME_ACCESS_LOG": "perhaps"},
        "WSFRAME_ACCESS_LOG: expected true or false, got 'perhaps'",
    ),
    (
        "",
        {"WSFRAME_MAX_THREADS": "0"},
        "max_threads must be at least 1: 0 (WSFRAME_MAX_THREADS)",
    ),
    ("key = 'a.pem'", {}, "key requires cert (shop.toml: key)"),
    (
        "redis = 'redis://:secret@a'",
        {"WSFRAME_REDIS_FILE": "url"},
        "redis and redis_file cannot be combined (shop.toml: redis, WSFRAME_REDIS_FILE)",
    ),
    (
        "redis_file = 'url'",
        {},
        "cannot read url: No such file or directory (shop.toml: redis_file)",
    ),
    ("redis_file = 'binary'", {}, "cannot read binary: it is not text in UTF-8 (shop.toml: redis_"),
]


def test_an_error_names_the_source_the_setting_and_the_value(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "binary").write_bytes(b"\xff")
    for content, variables, message in FAULTS:
        (directory / "shop.toml").write_text(content)
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            line = error(capsys, "--config", "shop.toml")
        assert line.startswith(message)
        assert "secret" not in line
    assert (
        error(capsys, "--config", "none")
        == "cannot read none: No such file or directory (--config)"
    )


def test_a_password_in_an_option_is_a_warning(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "url").write_text("redis://:secret@localhost")
    warnings: list[str] = []
    monkeypatch.setattr(serve, "run", lambda *_: None)
    monkeypatch.setattr(log, "warning", warnings.append)
    for arguments in (["--redis", "redis://localhost"], ["--redis-file", "url"]):
        assert serve.main(arguments, "serve") == 0
    assert warnings == []
    for url in ("redis://:secret@localhost", "redis://localhost/0?password=secret"):
        assert serve.main(["--redis", url], "serve") == 0
        warning = warnings.pop()
        assert not warnings
        assert "the password in --redis is visible" in warning
        assert "secret" not in warning
