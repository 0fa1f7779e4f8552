"""The command ``doctor`` with servers that run a script for each connection."""

from __future__ import annotations

import socketserver
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.cli.conftest import Run
from tests.support.scripted import Script, ScriptedServer, Visit
from tests.support.waiting import TIMEOUT
from wsframe import Close, Ping

STREAM = "text/event-stream"


class Server(socketserver.ThreadingTCPServer):
    """Serves each connection with the next script, in a thread."""

    def __init__(self, scripts: tuple[Script, ...]) -> None:
        super().__init__(("127.0.0.1", 0), self.handle)  # type: ignore[arg-type]
        self.scripts = deque(scripts)
        self.errors: list[BaseException] = []
        self.port: int = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def handle(self, sock: Any, *_: object) -> None:
        """Run the next script."""
        with sock:
            try:
                self.scripts.popleft()(Visit(sock))
            except BaseException as error:
                self.errors.append(error)

    def stop(self) -> None:
        """Stop; the scripts have ended without an error, and none is left."""
        self.shutdown()
        self.server_close()
        self._thread.join(TIMEOUT)
        assert self.errors == []
        assert not self.scripts


Examine = Callable[..., tuple[int, str]]


@pytest.fixture
def examine(run: Run) -> Iterator[Examine]:
    """Examine a server with these scripts; return the exit code and the report."""
    with ExitStack() as servers:

        def examine_it(scheme: str, *scripts: Script, **options: float) -> tuple[int, str]:
            server = Server((Visit.wait_for_end, *scripts))  # the first connection sends nothing
            servers.callback(server.stop)
            limits = {"silence": 0.1, "timeout": 5, **options}
            given = [f"--{name}={value}" for name, value in limits.items()]
            ran = run("doctor", f"{scheme}://127.0.0.1:{server.port}/x", *given)
            return ran.code, "\n".join(ran.out)

        yield examine_it


def answer(status: int, *headers: tuple[str, str], body: bytes = b"") -> Script:
    return lambda visit: visit.answer(status, *headers, body=body)


def reset(visit: Visit) -> None:
    visit.read_head()
    visit.reset()


def stream(body: bytes, *headers: tuple[str, str]) -> Script:
    return answer(200, ("Content-Type", STREAM), *headers, body=body)


def open_stream(body: bytes, *headers: tuple[str, str]) -> Script:
    """Begin a stream, and keep it open."""

    def script(visit: Visit) -> None:
        stream(body, *headers)(visit)
        visit.wait_for_end()

    return script


def down(visit: Visit) -> None:
    """Answer as Cloudflare does for a server that does not run."""
    visit.read_head()
    visit.send(b"HTTP/1.1 521 Down\r\nCF-RAY: 1\r\nContent-Length: 0\r\n\r\n")


def silent(visit: Visit) -> None:
    visit.upgrade()
    visit.wait_for_end()


def busy(visit: Visit) -> None:
    """Send messages until the client closes."""
    visit.upgrade()
    ping = visit.next_event()
    assert isinstance(ping, Ping)
    visit.send(visit.codec.pong(ping.payload))
    events: list[object] = []
    threading.Thread(target=lambda: events.append(visit.next_event())).start()
    while not events:
        visit.send(visit.codec.encode("news"))
        time.sleep(0.01)
    assert isinstance(events[0], Close)


def closing(visit: Visit) -> None:
    visit.upgrade()
    visit.next_event()
    visit.send(visit.codec.close(4000, "enough"))
    visit.wait_for_end()


FORBIDDEN = [answer(403, body=b"not you")] * 3


@pytest.mark.parametrize(
    ("scripts", "found"),
    [
        ([answer(503, body=b"full")], "The server is full or does not run: "),
        ([answer(401)], "The server requires credentials (--header): "),
        (FORBIDDEN, "The server refuses this client: The server answered 403 Forbidden (not you)"),
        (
            [answer(421, body=b"no")],
            "does not serve the host that it receives: The server answered",
        ),
        ([answer(421)], "setting hosts of the server (--hosts)"),
        ([answer(502, body=b"<html>")], "The server answered 502 Bad Gateway\n"),
        ([answer(502, ("Server", "nginx"))], "or proxy_pass http://unix:SOCKET;"),
        ([answer(500)], "The server refused the upgrade: The server answered 500"),
        ([reset], "The upgrade failed: "),
        (
            [answer(200, ("Content-Type", STREAM))],
            "is an event stream and not a WebSocket: examine http://127.0.0.1:",
        ),
        (
            [answer(500, ("Content-Type", STREAM), body=b"the topic does not exist")],
            "Internal Server Error (the topic does not exist)",
        ),
        ([answer(302, ("Location", "/login"))], "The URL redirects to /login"),
        ([answer(302)], "A redirect has no target: The server answered 302 Found"),
        ([down], "Cloudflare: 520 to 526: check the origin server"),
        ([answer(426, ("Server", "cloudflare"))], "Cloudflare: Network > WebSockets: on"),
        ([answer(426, ("Via", "1.1 Caddy"))], "Caddy:      remove header_up and request_header"),
    ],
)
def test_refused_upgrades_are_explained(
    examine: Examine, scripts: list[Script], found: str
) -> None:
    code, report = examine("ws", *scripts)
    assert found in report
    assert code == 1


def test_the_urls_may_follow_two_dashes(run: Run) -> None:
    ran = run("doctor", "--", "-host:port/x")
    assert (ran.code, "'ws://-host:port/x'" in ran.err[-1]) == (2, True)


def test_an_error_of_the_application_has_no_remedy_of_a_proxy(examine: Examine) -> None:
    _, report = examine("ws", answer(500, ("Server", "nginx")))
    assert "nginx:" not in report


def test_a_ping_without_an_answer_is_a_problem(examine: Examine) -> None:
    code, report = examine("ws", silent, answer(403), timeout=0.2)
    assert "A ping is not answered: " in report
    assert code == 1


@pytest.mark.parametrize("silence", [0.1, 0])
def test_a_server_that_sends_all_the_time_is_observed_for_a_limited_time(
    examine: Examine, silence: float
) -> None:
    code, report = examine("ws", busy, answer(403), silence=silence)
    assert f"The connection stays open for {silence} s." in report
    assert code == 0


def test_a_close_frame_of_the_server_is_no_problem(examine: Examine) -> None:
    code, report = examine("ws", closing, answer(403))
    assert "The server closed the connection: 4000 enough" in report
    assert code == 0


@pytest.mark.parametrize(
    ("scripts", "code", "found"),
    [
        ([reset], 1, "The request failed: "),
        ([answer(500)], 1, "The server refused the request: "),
        (FORBIDDEN, 1, "The server refused the request: The server answered 403"),
        ([answer(403), reset, answer(403)], 1, "The server refused the request: "),
        ([answer(421)], 1, "setting hosts of the server (--hosts)"),
        ([open_stream(b":\n\n"), reset], 0, "A second request failed: "),
        (
            [open_stream(b":\n\n"), stream(b"", ("Access-Control-Allow-Origin", "*"))],
            0,
            "Pages of all other sites may read the events (CORS).",
        ),
        ([open_stream(b""), answer(403)], 1, "proxy_buffering off;"),
        (
            [open_stream(b"", ("Content-Encoding", "gzip")), answer(403)],
            1,
            "gzip off;",
        ),
        (
            [stream(b"", ("Content-Length", "9")), answer(403)],
            1,
            "The stream was cut: the response is malformed or truncated",
        ),
        (
            [stream(b":\n\n", ("Content-Length", "9")), answer(403)],
            1,
            "The stream was cut after ",
        ),
        ([stream(b"data: x\n\n"), answer(403)], 0, "The server ended the stream after 1 events."),
        ([stream(b":\n\n"), answer(403)], 1, "without an event."),
        ([answer(426)], 1, "is a WebSocket and not an event stream: examine ws://127.0.0.1:"),
        ([stream(b"", ("Content-Encoding", "br")), answer(403)], 1, "Content-Encoding: 'br'"),
    ],
)
def test_streams_are_explained(
    examine: Examine, scripts: list[Script], code: int, found: str
) -> None:
    exit_code, report = examine("http", *scripts)
    assert found in report
    assert exit_code == code


def test_a_stream_that_sends_events_for_long_enough_is_open(examine: Examine) -> None:
    def script(visit: Visit) -> None:
        visit.stream()
        visit.trickle(b"data: x\n\n")

    code, report = examine("http", script, answer(403))
    assert "The stream stays open for 0.1 s." in report
    assert code == 0


def test_options_may_appear_between_urls(run: Run) -> None:
    ran = run("doctor", "ws://127.0.0.1:1/", "--silence", 1, "http://127.0.0.1:1/")
    assert ran.out[::2] == ["ws://127.0.0.1:1/", "http://127.0.0.1:1/"]


def test_without_a_connection_nothing_else_is_checked(run: Run) -> None:
    ran = run("doctor", "ws://127.0.0.1:1/", "http://127.0.0.1:1/")
    assert ran.code == 1
    problem = "  problem  Cannot connect: connection refused"
    assert ran.out == ["ws://127.0.0.1:1/", problem, "http://127.0.0.1:1/", problem]
    assert ran.err == ["2 problems"]


@pytest.mark.parametrize("url", ["localhost/#part", "ftp://localhost/", "ws:///"])
def test_an_invalid_url_is_named(run: Run, url: str) -> None:
    ran = run("doctor", url)
    assert ran.code == 2
    assert "error: " in ran.err[-1]


@pytest.mark.parametrize(("days", "problem"), [(5, True), (50, False)])
def test_a_certificate_that_expires_soon_is_a_problem(
    run: Run, tmp_path: Path, days: int, problem: bool
) -> None:
    authority = trustme.CA()
    end = datetime.now(UTC) + timedelta(days=days, hours=1)
    certificate = authority.issue_cert("127.0.0.1", not_after=end)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = ScriptedServer(Visit.wait_for_end, answer(404), tls=context)
    ran = run("doctor", server.url(), "--cacert", tmp_path / "ca.pem", "--silence", "0.1")
    server.stop()
    assert (f"The certificate expires in {days} days." in "\n".join(ran.out)) == problem
    assert "The path does not exist" in "\n".join(ran.out)
