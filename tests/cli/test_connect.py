"""The command ``connect`` in pipes."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Input, Program, Run
from tests.cli.test_connect_count import NOT_SENT
from tests.support.certificates import Certificates
from tests.support.scripted import ScriptedServer, Visit
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe import Close, CloseCode
from wsframe.server import App, Request, Server

PROGRAM = (sys.executable, "-m", "wsframe", "connect")
TOO_MANY = "x" * 3000


@pytest.fixture
def server(serve: Serve) -> Server:
    """A server that echoes, refuses and closes."""
    app = App()

    @app.websocket("/echo", subprotocols=["b", "a"], origins=["https://a.example"])
    def echo(ws: Any) -> None:
        for message in ws:
            ws.send(message)

    @app.websocket("/request")
    def request(ws: Any) -> None:
        request: Request = ws.request
        ws.send(f"{request.headers['x-name']} {ws.subprotocol}")

    @app.websocket("/silent")
    def silent(ws: Any) -> Any:
        while True:
            yield

    @app.websocket("/title")
    def title(ws: Any) -> Any:
        ws.close(4000, "evil \x1b]0;title\x07")
        yield

    @app.websocket("/close/{code}")
    def close(ws: Any, code: str) -> Any:
        ws.send("last")
        ws.close(int(code), "the reason")
        yield

    return serve(app)


def address(server: Server, path: str) -> str:
    return f"127.0.0.1:{server.port}{path}"


def test_the_bytes_of_a_message_that_are_not_utf_8_are_replaced(run: Run, server: Server) -> None:
    ran = run("connect", address(server, "/echo"), "-m", "a\udcff", "-n", 1)
    assert (ran.code, ran.out, ran.err) == (0, ["a\ufffd"], [])
    ran = run("connect", address(server, "/echo"), "-b", "-m", "a\udcff", "-n", 1)
    assert (ran.code, ran.raw) == (0, b"a\xff")


def test_no_escape_sequence_of_the_server_reaches_the_terminal(run: Run, server: Server) -> None:
    ran = run("connect", address(server, "/title"), "--wait", "inf")
    (line,) = ran.err
    assert line.endswith(r"4000 evil \x1b]0;title\x07")


def test_messages_are_sent_and_the_answers_are_printed(run: Run, server: Server) -> None:
    ran = run("connect", address(server, "/echo"), "-m", "one", "-m", "grün", "-n", 2)
    assert (ran.code, ran.out, ran.err) == (0, ["one", "grün"], [])


def test_lines_of_the_input_are_messages(run: Run, server: Server, stdin: Input) -> None:
    stdin.write(b"one\ntwo\r\n\nlast")
    stdin.close()
    ran = run("connect", address(server, "/echo"), "-n", 4)
    assert (ran.code, ran.raw) == (0, b"one\ntwo\n\nlast\n")


def test_a_binary_input_is_one_message(run: Run, server: Server, stdin: Input) -> None:
    stdin.write(b"\x00\n\xff")
    stdin.close()
    ran = run("connect", address(server, "/echo"), "--binary", "-n", 1)
    assert (ran.code, ran.raw) == (0, b"\x00\n\xff")


def test_a_message_may_be_binary(run: Run, server: Server) -> None:
    assert run("connect", address(server, "/echo"), "-b", "-m", "x", "-n", 1).raw == b"x"


def test_after_the_input_it_closes_when_the_server_is_silent(
    run: Run, server: Server, stdin: Input
) -> None:
    stdin.write(b"one\n")
    stdin.close()
    ran = run("connect", address(server, "/echo"), "--wait", "0.1")
    assert (ran.code, ran.out) == (0, ["one"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written_is_a_failure(server: Server) -> None:
    command = f"exec {' '.join(PROGRAM)} {address(server, '/echo')} -m x >/dev/full"
    result = subprocess.run(
        ["sh", "-c", command], capture_output=True, timeout=TIMEOUT, check=False
    )
    reason = b"python -m wsframe connect: cannot write the output: No space left on device\n"
    assert (result.returncode, result.stderr) == (1, reason)


def test_a_closed_standard_input_is_an_empty_one(server: Server) -> None:
    command = f"exec {' '.join(PROGRAM)} {address(server, '/silent')} --wait 0.01 <&-"
    result = subprocess.run(
        ["sh", "-c", command], capture_output=True, timeout=TIMEOUT, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def test_fewer_messages_than_expected_are_a_failure(run: Run, server: Server) -> None:
    ran = run("connect", address(server, "/echo"), "-m", "one", "-n", 2, "--wait", "0.1")
    assert (ran.code, ran.out) == (1, ["one"])
    assert ran.err == ["received 1 of 2 messages (--count)"]


@pytest.mark.parametrize(
    ("code", "exit_code", "lines"),
    [
        (CloseCode.NORMAL_CLOSURE, 0, []),
        (CloseCode.GOING_AWAY, 0, []),
        (4001, 1, ["The server closed the connection: 4001 the reason"]),
    ],
)
def test_the_close_code_decides_on_the_exit_code(
    run: Run, server: Server, stdin: Input, code: int, exit_code: int, lines: list[str]
) -> None:
    ran = run("connect", address(server, f"/close/{int(code)}"))
    assert (ran.code, ran.out, ran.err) == (exit_code, ["last"], lines)


def scripted(script: Callable[[Visit], object]) -> ScriptedServer:
    return ScriptedServer(script)


def test_a_lost_connection_is_a_failure(run: Run, stdin: Input) -> None:
    server = scripted(lambda visit: visit.upgrade())
    ran = run("connect", server.url())
    server.stop()
    assert ran.code == 1
    assert ran.err[0].startswith("The connection was lost: 1006 ")


def test_a_message_that_cannot_be_sent_is_no_error_of_its_own(run: Run) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send(visit.codec.close(4000, "no"))
        while not isinstance(visit.next_event(), Close):
            pass

    server = scripted(script)
    ran = run("connect", server.url(), *["-m", "x" * 1000] * 50)
    server.stop()
    assert ran.code == 1
    assert ran.err[-1] == "The server closed the connection: 4000 no"
    assert ran.err[:-1] in ([], [NOT_SENT])


def test_messages_beyond_the_expected_number_are_not_printed(run: Run) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == "x"
        visit.send_messages("one", "two")
        visit.answer_close()

    server = scripted(script)
    ran = run("connect", server.url(), "-m", "x", "-n", 1)
    server.stop()
    assert (ran.code, ran.out) == (0, ["one"])


def test_the_request_has_the_given_values(run: Run, server: Server) -> None:
    options = ["-H", "X-Name: y", "-s", "b,a", "-m", "x", "--no-compression"]
    assert run("connect", address(server, "/request"), *options, "-n", 1).out == ["y None"]
    ran = run("connect", address(server, "/echo"), "-s", "a", "-v", "-m", "x", "-n", 1)
    assert "Sec-WebSocket-Protocol: a" in ran.err


@pytest.mark.parametrize(("origin", "code"), [("https://a.example", 0), ("https://b.example", 4)])
def test_the_origin_may_be_chosen(run: Run, server: Server, origin: str, code: int) -> None:
    url = address(server, "/echo")
    assert run("connect", url, "--origin", origin, "-m", "x", "-n", 1).code == code


def test_a_refusal_is_shown_with_the_beginning_of_its_body(run: Run) -> None:
    body = "first\x1b[31m\n\n" + "line\n" * 30
    server = scripted(lambda visit: visit.answer(403, body=body.encode()))
    ran = run("connect", server.url("/x"))
    assert ran.code == 4
    assert ran.err[:4] == [
        f"wsframe connect: {server.url('/x')}",
        "  the server answered 403 Forbidden",
        r"    first\x1b[31m",
        "    line",
    ]
    assert ran.err[-1] == "    ..."
    assert len(ran.err) < 30
    server.stop()


@pytest.mark.parametrize(
    ("status", "header", "body", "lines"),
    [
        (
            301,
            ("Location", "https://a.example/x"),
            b"<html>",
            [
                "  the server answered 301 Moved Permanently: use the URL of the redirect, "
                "https://a.example/x",
            ],
        ),
        (302, ("X-Other", ""), b"", ["  the server answered 302 Found"]),
        (
            200,
            ("Content-Type", "text/event-stream; charset=utf-8"),
            b"data: x\n\n",
            [
                "  the server answered 200 OK: the URL is an event stream, which the command "
                "events follows"
            ],
        ),
        (
            200,
            ("Content-Type", "text/html"),
            b"\n<!doctype html>",
            ["  the server answered 200 OK"],
        ),
        (
            403,
            ("Content-Type", "application/xhtml+xml; charset=utf-8"),
            b"<?xml version='1.0'?>",
            ["  the server answered 403 Forbidden"],
        ),
        (
            500,
            ("Content-Type", "text/event-stream"),
            b"the topic does not exist",
            [
                "  the server answered 500 Internal Server Error",
                "    the topic does not exist",
            ],
        ),
        (
            403,
            ("Content-Type", "application/xml"),
            b"<error>the token has expired</error>",
            ["  the server answered 403 Forbidden", "    <error>the token has expired</error>"],
        ),
    ],
)
def test_a_url_of_another_kind_is_explained(
    run: Run, status: int, header: tuple[str, str], body: bytes, lines: list[str]
) -> None:
    server = scripted(lambda visit: visit.answer(status, header, body=body))
    ran = run("connect", server.url())
    server.stop()
    assert (ran.code, ran.err[-len(lines) :]) == (4, lines)


def test_a_long_line_of_a_body_is_cut(run: Run) -> None:
    server = scripted(lambda visit: visit.answer(500, body=TOO_MANY.encode()))
    lines = run("connect", server.url()).err
    assert lines[-1] == "    ..."
    assert len(lines[-2]) < len(TOO_MANY)
    server.stop()


def test_a_response_other_than_http_is_a_refusal(run: Run) -> None:
    server = scripted(lambda visit: visit.send(b"220 mail.example\r\n\r\n"))
    ran = run("connect", server.url())
    server.stop()
    assert ran.code == 4
    assert ran.err[1] == "  the response does not begin with an HTTP/1.1 status line"


def test_no_connection_has_a_code_of_its_own(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ran = run("connect", f"127.0.0.1:{port}", "--timeout", "0.05")
        assert (ran.code, ran.err[1]) == (3, "  no response in time (--timeout)")
    ran = run("connect", f"127.0.0.1:{port}")
    assert (ran.code, ran.err[1]) == (3, "  connection refused")


def test_a_port_without_tls_is_named(run: Run) -> None:
    def script(visit: Visit) -> None:
        visit.sock.recv(1 << 16)
        visit.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = scripted(script)
    ran = run("connect", f"wss://127.0.0.1:{server.port}")
    server.stop()
    assert ran.code == 3
    assert ran.err[1].startswith("  TLS failed: ")
    assert ran.err[1].endswith("(does this port use TLS?)")


def test_a_missing_or_refused_certificate_of_the_client_is_named(
    run: Run, serve: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    certificates.write(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    Certificates().write(other)
    server = serve(App(), cert=tmp_path / "both.pem", client_ca=tmp_path / "ca.pem")
    url = (f"wss://localhost:{server.port}/", "--cacert", tmp_path / "ca.pem")
    ran = run("connect", *map(str, url))
    assert ran.code == 3
    assert ran.err[1].endswith("(the server requires a certificate of the client)")
    ran = run("connect", *map(str, url), "--cert", str(other / "both.pem"))
    assert ran.code == 3
    assert ran.err[1].endswith("(the server does not accept the certificate of this client)")


def test_an_unknown_host_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    ran = run("connect", "nothing.example")
    assert (ran.code, ran.err[1]) == (3, "  the host is unknown: Name or service not known")


def test_ctrl_c_closes_the_connection() -> None:
    closed = threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send_messages("ready")
        assert visit.answer_close() == Close(1000)
        closed.set()

    server = scripted(script)
    with Program("connect", server.url()) as program:
        assert program.stdout.readline() == b"ready\n"
        assert program.interrupt() == 130
    assert closed.wait(TIMEOUT)
    server.stop()


def test_the_end_of_the_reader_ends_the_command() -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send_messages("one")
        assert visit.next_event() == "go"
        visit.send_messages("two")
        visit.answer_close()

    server = scripted(script)
    with Program("connect", server.url()) as program:
        assert program.stdout.readline() == b"one\n"
        program.stdout.close()
        program.stdin.write(b"go\n")
        program.stdin.flush()
        assert program.wait() == 1
        assert program.stderr.read() == b""
    server.stop()


def test_an_interrupted_attempt_to_connect_has_the_code_of_ctrl_c(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(socket, "getaddrinfo", interrupt)
    assert run("connect", "localhost").code == 130
    assert run("events", "localhost").code == 130
