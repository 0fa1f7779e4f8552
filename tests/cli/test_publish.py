"""The command ``publish``, with a real Redis."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Program, Run
from tests.support.processes import run as run_process
from tests.support.redis_server import RedisServer
from wsframe.testing import ReservedPort

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis."""
    with RedisServer(tmp_path_factory.mktemp("redis"), persistent=False) as server:
        yield server


def stored(broker: RedisServer) -> list[str]:
    """Return everything that Redis has stored, as text."""
    with broker.client() as client:
        return [
            str(entry)
            for key in client.keys("*")
            if client.type(key) == b"stream"
            for entry in client.xrange(key)
        ]


def test_messages_are_stored_in_the_log_of_the_topic(run: Run, broker: RedisServer) -> None:
    ran = run("publish", "news", "--redis", broker.url, "first-message", "second-message")
    assert (ran.code, ran.err) == (0, [])
    assert ran.out == [
        "Redis has stored 2 events of the topic 'news'.",
        "Apps with this Redis and the prefix 'wsframe:' send them to subscribers, which are not "
        "counted here.",
    ]
    log = "".join(stored(broker))
    assert log.index("first-message") < log.index("second-message")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--", "topic", "-first", "-second"],
        ["--event", "tick", "--", "topic", "-first", "-second"],
        ["topic", "--event", "tick", "--", "-first", "-second"],
        ["topic", "--", "-first", "-second"],
    ],
)
def test_messages_after_two_dashes_may_begin_with_a_dash(
    run: Run, broker: RedisServer, arguments: list[str]
) -> None:
    ran = run("publish", "--redis", broker.url, "--redis-prefix", "dashes:", *arguments)
    assert (ran.code, ran.err) == (0, [])
    assert ran.out[0] == "Redis has stored 2 events of the topic 'topic'."


def test_lines_of_the_input_are_events(broker: RedisServer) -> None:
    with Program("publish", "lines", "--event", "tick", "--redis", broker.url) as program:
        program.stdin.write(b"line-number-one\nline-number-two\n")
        program.stdin.close()
        assert program.wait() == 0
        assert program.stdout.readline() == b"Redis has stored 2 events of the topic 'lines'.\n"
    log = "".join(stored(broker))
    assert log.index("line-number-one") < log.index("line-number-two")


def test_a_closed_input_has_no_events(broker: RedisServer) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m wsframe publish x --redis {broker.url} <&-"
    ran = run_process(["sh", "-c", command])
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Redis has stored 0 events of the topic 'x'.\n")


def test_the_address_may_come_from_the_environment(
    run: Run, broker: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSFRAME_REDIS", broker.url)
    assert run("publish", "news", "x").out[0] == "Redis has stored 1 event of the topic 'news'."
    monkeypatch.setenv("WSFRAME_REDIS_PREFIXES", "shop:")
    ran = run("publish", "news", "x")
    assert ran.code == 2
    assert ran.err[-1].endswith("is not a setting of wsframe; did you mean WSFRAME_REDIS_PREFIX?")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["news", "x", "--redis", "http://localhost"], "wsframe publish: "),
        (["x" * 2000, "x"], "wsframe publish: "),
        (["news", "x", "--event", "a\nb"], "wsframe publish: an event's event must not contain"),
    ],
)
def test_invalid_values_are_named_in_one_line(
    run: Run, broker: RedisServer, arguments: list[str], message: str
) -> None:
    ran = run("publish", "--redis", broker.url, *arguments)
    assert ran.code == 1
    (line,) = ran.err
    assert line.startswith(message)


def test_events_that_redis_refuses_are_a_failure(run: Run, broker: RedisServer) -> None:
    url = broker.url.replace("redis://", "redis://nobody:wrong@")
    ran = run("publish", "news", "x", "--redis", url)
    assert ran.code == 1
    assert ran.out == []
    (line,) = ran.err
    assert line.startswith("wsframe publish: ")
    assert "invalid username-password pair" in line


def test_an_unreachable_redis_is_a_failure_at_once(run: Run) -> None:
    with ReservedPort() as port:
        ran = run("publish", "news", "x", "--redis", f"redis://127.0.0.1:{port}")
    assert (ran.code, ran.out) == (1, [])
    (line,) = ran.err
    assert line.startswith(
        f"wsframe publish: Redis at 127.0.0.1:{port} is unavailable (--redis, WSFRAME_REDIS): Error"
    )
    assert line.endswith("Only its own process can publish to an App without Redis.")
