"""The command ``events``."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Program, Run
from tests.support.scripted import Script, ScriptedServer, Visit
from tests.support.waiting import TIMEOUT
from wsframe.client import eventsource
from wsframe.client.pause import Pause

PROGRAM = (sys.executable, "-m", "wsframe", "events")
ONE = b"id: 7\nevent: tick\ndata: one\ndata: two\n\n"


@pytest.fixture
def play() -> Any:
    """Start scripted servers; an exception in a script fails the test."""
    with ExitStack() as servers:

        def start(*scripts: Script) -> ScriptedServer:
            server = ScriptedServer(*scripts)
            servers.callback(server.stop)
            return server

        yield start


def stream(body: bytes) -> Script:
    return lambda visit: visit.stream(body)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("data", "one\ntwo\nthree\n"),
        ("pretty", "[7 tick] one\n  two\n[7] three\n"),
        ("wire", "event: tick\nid: 7\ndata: one\ndata: two\n\nid: 7\ndata: three\n\n"),
    ],
)
def test_events_are_printed_in_the_chosen_form(run: Run, play: Any, output: str, text: str) -> None:
    server = play(stream(ONE + b"data: three\n\n"))
    ran = run("events", server.http_url(), "-n", 2, "-o", output)
    assert (ran.code, ran.raw.decode()) == (0, text)
    assert ran.err == [f"Following {server.http_url()} (Ctrl-C ends)"]


def test_json_has_one_event_a_line(run: Run, play: Any) -> None:
    ran = run("events", play(stream(ONE + b"data\n\n")).http_url(), "-n", 2, "-o", "json")
    assert [json.loads(line) for line in ran.out] == [
        {"id": "7", "event": "tick", "data": "one\ntwo"},
        {"id": "7", "event": "message", "data": ""},
    ]


def test_events_for_people_have_no_control_characters(run: Run, play: Any) -> None:
    server = play(stream(b"event: \x1b[31m\ndata: \x1b[2J\n\n"))
    assert run("events", server.http_url(), "-n", 1, "-o", "pretty").out == [r"[\x1b[31m] \x1b[2J"]


def test_the_data_is_the_default_in_a_pipe(run: Run, play: Any) -> None:
    assert run("events", play(stream(ONE)).http_url(), "-n", 1).out == ["one", "two"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnect without the shortest delay."""
    monkeypatch.setattr(eventsource, "Pause", partial(Pause, min_retry=0.01))


@pytest.mark.usefixtures("quick")
def test_failures_and_retries_are_reported(run: Run, play: Any) -> None:
    server = play(
        stream(b"retry: 0\ndata: one\n\n"),
        lambda visit: visit.answer(503, body=b"the server is full"),
        stream(b"data: two\n\n"),
    )
    ran = run("events", server.http_url(), "-n", 2)
    assert (ran.code, ran.out) == (0, ["one", "two"])
    following, ended, full, body, again = ran.err
    assert following == again == f"Following {server.http_url()} (Ctrl-C ends)"
    assert ended.startswith("The stream is closed: the server ended it. Next attempt in 0.")
    assert full.startswith("The stream is closed: the server answered 503 Service Unavailable.")
    assert body == "  the server is full"


def test_the_request_continues_after_an_id(run: Run, play: Any) -> None:
    def script(visit: Visit) -> None:
        visit.stream(ONE)
        assert visit.headers["Last-Event-ID"] == "6"
        assert visit.headers["X-Name"] == "y"

    assert run(
        "events", play(script).http_url(), "--last-event-id", 6, "-n", 1, "-H", "X-Name: y"
    ).out == ["one", "two"]


def posted(body: bytes, content_type: str, method: str = "POST") -> Script:
    def script(visit: Visit) -> None:
        visit.stream(b"data: answer\n\n")
        while len(visit.unread) < len(body):
            visit.unread += visit.sock.recv(1 << 16)
        assert visit.unread == body
        assert visit.request_line == f"{method} / HTTP/1.1"
        assert visit.headers["Content-Type"] == content_type

    return script


def test_data_are_posted_once(run: Run, play: Any) -> None:
    server = play(posted(b"{}", "application/json"))
    ran = run("events", server.http_url(), "--data", "{}")
    assert (ran.code, ran.out) == (0, ["answer"])
    assert ran.err[-1] == "The stream has ended."


def test_data_are_read_from_a_file(run: Run, play: Any, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\xff")
    options = ["-X", "PUT", "-H", "content-type: x/y", "-d", f"@{tmp_path / 'body'}"]
    server = play(posted(b"\xff", "x/y", "PUT"))
    assert run("events", server.http_url(), *options).out == ["answer"]


def test_data_are_read_from_the_standard_input(play: Any) -> None:
    server = play(posted(b"{}", "application/json"))
    result = subprocess.run(
        [*PROGRAM, server.http_url(), "-d", "@-"],
        input=b"{}",
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, b"answer\n")


def test_a_file_that_cannot_be_read_is_named(run: Run) -> None:
    ran = run("events", "localhost:9", "--data", "@none")
    assert ran.code == 2
    assert ran.err[-1].endswith("cannot read 'none': No such file or directory")


def test_a_refusal_is_shown_with_its_body(run: Run, play: Any) -> None:
    server = play(lambda visit: visit.answer(401, body=b"log in"))
    ran = run("events", server.http_url())
    assert ran.code == 4
    assert ran.err == [
        f"wsframe events: {server.http_url()}",
        "  the server answered 401 Unauthorized",
        "    log in",
    ]


def test_an_error_of_the_type_of_streams_is_shown_with_its_body(run: Run, play: Any) -> None:
    header = ("Content-Type", "text/event-stream")
    server = play(lambda visit: visit.answer(500, header, body=b"the topic does not exist"))
    ran = run("events", server.http_url(), "--no-reconnect")
    assert (ran.code, ran.err[1:]) == (
        4,
        ["  the server answered 500 Internal Server Error", "    the topic does not exist"],
    )


@pytest.mark.usefixtures("quick")
def test_a_refusal_after_a_reconnect_ends_the_command(run: Run, play: Any) -> None:
    server = play(
        stream(b"retry: 0\ndata: one\n\n"), lambda visit: visit.answer(403, body=b"log in")
    )
    ran = run("events", server.http_url())
    assert (ran.code, ran.out) == (4, ["one"])
    assert ran.err[-2:] == ["  the server answered 403 Forbidden", "    log in"]


def test_a_lost_stream_that_is_not_repeated_is_a_failure(run: Run, play: Any) -> None:
    def script(visit: Visit) -> None:
        visit.answer(
            200,
            ("Content-Type", "text/event-stream"),
            ("Content-Length", "100"),
            body=b"data: one\n\n",
        )

    ran = run("events", play(script).http_url(), "--no-reconnect")
    assert (ran.code, ran.out) == (1, ["one"])
    assert "truncated" in ran.err[-1]


def test_an_event_over_the_limit_is_a_failure(run: Run, play: Any) -> None:
    def script(visit: Visit) -> None:
        visit.stream()
        with suppress(ConnectionError):
            while True:
                visit.send(b"data: " + b"x" * (1 << 16))

    ran = run("events", play(script).http_url())
    assert ran.code == 1
    assert ran.err[-1].startswith("  an event exceeds the limit")


def test_fewer_events_than_expected_are_a_failure(run: Run, play: Any) -> None:
    server = play(lambda visit: visit.answer(204))
    ran = run("events", server.http_url(), "-n", 1)
    assert ran.code == 1
    assert ran.err == ["the stream has ended after 0 of 1 events (--count)"]


def test_ctrl_c_ends_the_command(play: Any) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        visit.wait_for_end()

    server = play(script)
    with Program("events", server.http_url()) as program:
        assert program.stdout.readline() == b"one\n"
        assert program.interrupt() == 130


def test_the_end_of_the_reader_ends_the_command(play: Any) -> None:
    def script(visit: Visit) -> None:
        visit.stream(b"data: one\n\n")
        with suppress(ConnectionError):
            while True:
                visit.send(b"data: two\n\n")

    server = play(script)
    with Program("events", server.http_url(), "--no-reconnect") as program:
        assert program.stdout.readline() == b"one\n"
        program.stdout.close()
        assert program.wait() == 1
        assert len(program.stderr.read().splitlines()) == 1
