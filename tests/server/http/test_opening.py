"""The request that opens a connection: complete answers to refused requests.

Each refused request has one answer. No handler is called, nothing follows the answer, and no reset
overtakes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from queue import Queue
from typing import Any

import pytest

from tests.support.clients import (
    KEY,
    Client,
    Clients,
    get,
    head,
    masked,
    parse_response,
    upgrade,
)
from tests.support.handlers import MessageGenerator, generator_echo, websocket_app
from tests.support.log import ServerLog
from tests.support.serving import Serve
from wsframe import Close, CloseCode, Headers, Opcode, ServerSentEvent
from wsframe.server import App, EventStream, Server, Settings, WebSocket

HOST = ("Host", "localhost")
MUST_UPGRADE = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
)
GARBAGE = (
    *("", "a b", "a\tb", "user:secret@a", "http://a", "a?b", "a#b", "a\\b", "%zz"),
    *("a:b", "a:-1", "a:65536", ":80", "a:1:2", "::1", "[::1", "[:::::]", "[::1]x", "[a]"),
)
HELLO = masked(Opcode.TEXT, "hello")


@pytest.fixture
def opened() -> list[str]:
    """The targets of the handlers that were called."""
    return []


@pytest.fixture
def server(serve: Serve, opened: list[str]) -> Iterator[Server]:
    """Return a server; at the end of the test it must still serve another client."""
    app = App()

    def echo(ws: WebSocket) -> MessageGenerator:
        opened.append(ws.request.path)
        while True:
            message = yield
            ws.send(message)

    app.page("/", "the page")
    app.websocket("/ws", deflate=True)(echo)
    app.websocket("/guarded", authorize=lambda _: False)(echo)
    app.sse("/stream")(lambda stream: opened.append(stream.request.path))
    server = serve(app)
    yield server
    client = Client(server.port)
    client.send(get("/"))
    assert client.answer().body == b"the page"


def expect_refusal(received: bytes, status: int, headers: Headers = ()) -> None:
    """Check for one answer, with these headers and the headers of every refusal."""
    answer = parse_response(received)
    assert received.startswith(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode())
    assert parsedate_to_datetime(answer.headers["Date"])
    del answer.headers["Date"]
    assert answer.headers.items() == [
        *headers,
        ("Content-Type", "text/plain; charset=utf-8"),
        ("X-Content-Type-Options", "nosniff"),
        ("Content-Length", str(len(answer.body))),
        ("Connection", "close"),
    ]
    assert answer.body.endswith(b"\n")


REFUSED: dict[str, tuple[bytes, int, Headers]] = {
    # The request line.
    "two spaces before the target": (head("GET  /ws HTTP/1.1", [HOST]), 400, ()),
    "two spaces behind the target": (head("GET /ws  HTTP/1.1", [HOST]), 400, ()),
    "a space at the end": (head("GET /ws HTTP/1.1 ", [HOST]), 400, ()),
    "a space at the beginning": (b" " + upgrade("/ws"), 400, ()),
    "a line feed at the beginning": (b"\n" + upgrade("/ws"), 400, ()),
    "a carriage return at the beginning": (b"\r" + upgrade("/ws"), 400, ()),
    "HTTP/2.0": (upgrade("/ws", version="2.0"), 505, ()),
    "HTTP/1.0": (upgrade("/ws", version="1.0"), 426, MUST_UPGRADE),
    "no version": (b"GET /ws\r\n\r\n", 505, ()),
    "a method of mixed case": (upgrade("/ws", method="Get"), 400, ()),
    "a method that only begins so": (upgrade("/ws", method="GETS"), 400, ()),
    "a method of 10 KB": (upgrade("/ws", method="A" * 10_000), 400, ()),
    # The target.
    "a fragment": (upgrade("/ws#top"), 400, ()),
    "a fragment behind the query": (upgrade("/ws?a=b#top"), 400, ()),
    "a user": (upgrade("http://user@localhost/ws"), 400, ()),
    "another protocol": (upgrade("ftp://localhost/ws"), 400, ()),
    "no host in the target": (upgrade("http:///ws"), 400, ()),
    "the host alone": (upgrade("localhost:80"), 400, ()),
    "no slash": (upgrade("ws"), 400, ()),
    "a backslash": (upgrade("\\ws"), 400, ()),
    "an asterisk": (head("OPTIONS * HTTP/1.1", [HOST]), 400, ()),
    "an authority": (head("CONNECT localhost:80 HTTP/1.1", [HOST]), 400, ()),
    "a target with a bad port": (upgrade("http://localhost:65536/ws"), 400, ()),
    "a target with half an address": (upgrade("http://[::1/ws"), 400, ()),
    "a target with an address of no family": (upgrade("http://[::1::2]/ws"), 400, ()),
    "501 parameters": (upgrade("/ws?" + "&" * 500), 400, ()),
    "a path in Latin-1": (upgrade("/ws%e9"), 400, ()),
    "an overlong slash": (upgrade("/ws%c0%af"), 400, ()),
    "an overlong letter": (upgrade("/%c1%b7s"), 400, ()),
    "a surrogate": (upgrade("/%ed%a0%80"), 400, ()),
    "8,193 bytes": (upgrade("/ws?" + "a" * 8189), 414, ()),
    # The head.
    "16,385 bytes": (upgrade("/ws", ("X-A", "a" * (16_378 - len(upgrade("/ws"))))), 431, ()),
    "101 headers": (upgrade("/ws", *[("X-A", "")] * 96), 431, ()),
    # Host.
    "no Host": (upgrade("/ws", changes={"Host": None}), 400, ()),
    "two Hosts": (upgrade("/ws", HOST), 400, ()),
    **{f"the Host {host!r}": (upgrade("/ws", changes={"Host": host}), 400, ()) for host in GARBAGE},
    # The upgrade.
    "no upgrade": (get("/ws"), 426, MUST_UPGRADE),
    "the upgrade to h2c": (upgrade("/ws", changes={"Upgrade": "h2c"}), 426, MUST_UPGRADE),
    "no Connection": (upgrade("/ws", changes={"Connection": None}), 426, MUST_UPGRADE),
    "version 8": (upgrade("/ws", changes={"Sec-WebSocket-Version": "8"}), 426, MUST_UPGRADE),
    "no version 13": (upgrade("/ws", changes={"Sec-WebSocket-Version": None}), 426, MUST_UPGRADE),
    "two versions": (upgrade("/ws", ("Sec-WebSocket-Version", "13")), 400, ()),
    "two keys": (upgrade("/ws", ("Sec-WebSocket-Key", KEY)), 400, ()),
    "a key of 15 bytes": (upgrade("/ws", changes={"Sec-WebSocket-Key": "A" * 20}), 400, ()),
    "a key of 17 bytes": (upgrade("/ws", changes={"Sec-WebSocket-Key": "A" * 23 + "="}), 400, ()),
    # Unknown paths, and refused clients.
    "a foreign Origin": (upgrade("/ws", ("Origin", "https://evil.example")), 403, ()),
    "a stranger": (upgrade("/guarded"), 403, ()),
    "no route": (upgrade("/none"), 404, ()),
    "POST to a WebSocket": (upgrade("/ws", method="POST"), 405, [("Allow", "GET")]),
    "POST to a page": (get("/", method="POST"), 405, [("Allow", "GET, HEAD")]),
    "DELETE of a stream": (get("/stream", method="DELETE"), 405, [("Allow", "GET, HEAD")]),
    # Heads in which a proxy may see one request, and a server two.
    "a body": (upgrade("/ws", ("Content-Length", "5")) + b"hello", 400, ()),
    "a length without a body": (upgrade("/ws", ("Content-Length", "5")), 400, ()),
    "a chunked body": (upgrade("/ws", ("Transfer-Encoding", "chunked")) + b"0\r\n\r\n", 400, ()),
    "the encoding identity": (upgrade("/ws", ("Transfer-Encoding", "identity")), 400, ()),
    "two lengths of nothing": (upgrade("/ws", *[("Content-Length", "0")] * 2), 400, ()),
    "a length and an encoding": (
        upgrade("/ws", ("Content-Length", "5"), ("Transfer-Encoding", "chunked")) + b"0\r\n\r\n",
        400,
        (),
    ),
    "a chunk that is a request": (
        upgrade("/ws", ("Transfer-Encoding", "chunked")) + b"0\r\n\r\n" + upgrade("/ws"),
        400,
        (),
    ),
    "a folded Upgrade": (upgrade("/ws", changes={"Upgrade": "\r\n websocket"}), 400, ()),
    "a space before the colon": (upgrade("/ws", ("Transfer-Encoding ", "chunked")), 400, ()),
    "frames behind": (upgrade("/none") + HELLO, 404, ()),
    "a request in order behind": (upgrade("/ws", HOST) + upgrade("/ws") + HELLO, 400, ()),
}


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("name", REFUSED)
def test_the_answer_to_a_refused_request(
    server: Server, clients: Clients, opened: list[str], name: str, bytewise: bool
) -> None:
    request, status, headers = REFUSED[name]
    client = clients.connect(server)
    if bytewise:
        # If the request is long, only its last bytes are sent one by one.
        client.send(request[:-400])
        client.send_bytewise(request[-400:])
    else:
        client.send(request)
    expect_refusal(client.read_to_end(), status, headers)
    assert not opened


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
def test_a_full_server_has_an_exact_answer(serve: Serve, clients: Clients, bytewise: bool) -> None:
    """All clients get the same answer, because a full server reads no requests."""
    server = serve(websocket_app(generator_echo), max_connections=1)
    clients.websocket(server, "/echo")
    client = clients.connect(server)
    (client.send_bytewise if bytewise else client.send)(upgrade("/echo"))
    assert client.read_to_end() == (
        b"HTTP/1.1 503 Service Unavailable\r\n"
        b"Retry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.unmeasured
@pytest.mark.parametrize("change", ["inserted", "put in place of another"])
@pytest.mark.parametrize("byte", [b"\0", b"\r", b"\n", b"\x80"], ids=["NUL", "CR", "LF", "0x80"])
def test_an_invalid_byte_anywhere_is_refused(
    server: Server, opened: list[str], byte: bytes, change: str
) -> None:
    request = upgrade("/ws")
    for place in range(len(request)):
        rest = request[place:] if change == "inserted" else request[place + 1 :]
        wrong = request[:place] + byte + rest
        if wrong.startswith(request):
            continue  # the same head, perhaps followed by one byte
        client = Client(server.port)
        try:
            client.send(wrong)
            client.half_close()
            received = client.read_to_end()
        finally:
            client.close()
        # An incomplete head may have no answer; every other has one.
        if received or b"\r\n\r\n" in wrong:
            answer = parse_response(received)
            assert answer.status in (400, 404, 426), wrong
            assert answer.headers["Content-Length"] == str(len(answer.body)), wrong
        assert not opened, wrong


@pytest.mark.parametrize(
    "target", ["http://localhost/ws", "https://localhost/ws", "ws://localhost/ws", "/ws?a=b"]
)
def test_a_target_can_contain_the_host(
    server: Server, clients: Clients, opened: list[str], target: str
) -> None:
    client = clients.websocket(server, target)
    client.send_messages("hello")
    assert client.next_event() == "hello"
    assert opened == ["/ws"]


@pytest.mark.parametrize("blank", ["", " ", "\t", " \t \t"])
def test_whitespace_around_a_header_is_not_part_of_its_value(
    serve: Serve, clients: Clients, blank: str
) -> None:
    app = App()
    seen: Queue[tuple[str | None, ...]] = Queue()

    @app.websocket("/ws")
    def look(ws: WebSocket) -> None:
        request = ws.request
        seen.put((request.host, request.headers["X-Key"], request.user_agent))

    around = {"X-Key": "a key", "User-Agent": "one", "Host": "localhost"}
    changes: dict[str, str | None] = {
        name: f"{blank}{value}{blank}" for name, value in around.items()
    }
    client = clients.connect(serve(app))
    client.send(upgrade("/ws", changes=changes))
    assert seen.get(timeout=10) == ("localhost", "a key", "one")


@pytest.mark.parametrize(
    "more", [get("/"), upgrade("/ws"), b"\r\n"], ids=["GET", "upgrade", "CRLF"]
)
def test_a_request_after_an_upgrade_is_not_served(
    server: Server, clients: Clients, opened: list[str], more: bytes
) -> None:
    client = clients.websocket(server, "/ws", first=more)
    close = client.next_event()
    assert isinstance(close, Close)
    assert close.code == CloseCode.PROTOCOL_ERROR
    client.expect_end()
    assert opened == ["/ws"]


@pytest.mark.parametrize("left", [1, 2, 3, 4])
def test_a_frame_can_arrive_with_the_end_of_the_head(
    server: Server, clients: Clients, left: int
) -> None:
    request = upgrade("/ws")
    client = clients.connect(server)
    client.send_bytewise(request[:-left])
    client.send(request[-left:] + HELLO)
    assert parse_response(client.read_until(b"\r\n\r\n")).status == 101
    assert client.read_until(b"hello") == b"\x81\x05hello"


def test_a_page_is_not_upgraded_to_http_2(server: Server, clients: Clients) -> None:
    client = clients.connect(server)
    connection = ("Connection", "Upgrade, HTTP2-Settings")
    client.send(get("/", ("Upgrade", "h2c"), connection, ("HTTP2-Settings", "AAMAAABk")) + b"PRI")
    answer = client.answer()
    assert (answer.status, answer.body) == (200, b"the page")
    assert answer.headers["Upgrade"] is None


def test_no_interim_answer_is_sent(server: Server, clients: Clients) -> None:
    """A client that expects 100 (RFC 9110 section 10.1.1) gets the final answer."""
    client = clients.connect(server)
    client.send(get("/", ("Expect", "100-continue"), ("Content-Length", "5")))
    assert client.answer().status == 200


# permessage-deflate -------------------------------------------------------------------------------

MALFORMED_OFFERS = (
    *("permessage-deflate;", "permessage-deflate; =", "permessage-deflate; =1", "; x", ";"),
    *("permessage-deflate=1", "permessage-deflate x", "permessage-deflate; a b", '"a"', "a/b"),
    *('permessage-deflate; a="', 'permessage-deflate; a=""', "permessage-deflate; a=", "\xe9"),
    *("permessage-deflate; a=\xe9", "permessage-deflate; a=b c", "permessage-deflate, a=b"),
)
DECLINED_OFFERS = (
    *("unknown", "x-webkit-deflate-frame", "permessage-deflate2", ",", ""),
    *(f"permessage-deflate; {name}" for name in ("unknown", "server_max_window_bits")),
    *(
        f"permessage-deflate; {side}_max_window_bits={bits}"
        for side in ("server", "client")
        for bits in ("7", "16", "08", "1e1", "-9", "999999999999999999999")
    ),
    *(f"permessage-deflate; {side}_no_context_takeover=1" for side in ("server", "client")),
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
)


@pytest.mark.parametrize("offer", MALFORMED_OFFERS)
def test_an_offer_that_is_not_a_list_of_extensions_is_a_bad_request(
    server: Server, clients: Clients, opened: list[str], offer: str
) -> None:
    client = clients.connect(server)
    client.send(upgrade("/ws", ("Sec-WebSocket-Extensions", offer)))
    expect_refusal(client.read_to_end(), 400)
    assert not opened


@pytest.mark.parametrize("offer", DECLINED_OFFERS)
def test_an_unacceptable_offer_is_declined(server: Server, clients: Clients, offer: str) -> None:
    """RFC 7692 section 7.1; the next offer may be acceptable."""
    header = "Sec-WebSocket-Extensions"
    client = clients.websocket(server, "/ws", (header, offer))
    assert client.headers[header] is None
    client.send_messages("hello")
    assert client.next_event() == "hello"
    client = clients.websocket(server, "/ws", (header, f"{offer}, permessage-deflate"))
    agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    assert client.headers[header] == agreed


# The deadline -------------------------------------------------------------------------------------


def test_the_handshake_timeout_is_ten_seconds() -> None:
    """This is the documented value; other tests use a shorter one."""
    assert Settings().handshake_timeout == 10


# Values of the client that are sent back ----------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "parameter"),
    [
        ("/echo/%0d%0aX-A:%20b", "\r\nX-A: b"),
        ("/echo/%00", "\0"),
        ("/echo/a%0A%0Ab", "a\n\nb"),
        ("/echo/..", ".."),
        ("/echo/%2e%2e", ".."),
        ("/echo/..%2f..%2Fetc%2fpasswd", "../../etc/passwd"),
        ("/echo/%252e", "%2e"),
    ],
)
def test_a_parameter_is_only_text(
    serve: Serve, clients: Clients, log: ServerLog, target: str, parameter: str
) -> None:
    """No header contains it, and the normal form of the path in the log has no line breaks."""
    app = App()

    @app.websocket("/echo/{text}")
    def fail(ws: WebSocket, text: str) -> MessageGenerator:
        ws.send(text)
        yield
        raise RuntimeError

    client = clients.websocket(serve(app), target)
    assert client.headers.keys() == ["Upgrade", "Connection", "Sec-WebSocket-Accept"]
    client.send_messages("fail")
    assert client.expect(2) == [parameter, Close(1011, "the handler failed")]
    path = "/echo/" + parameter.translate({10: "%0A", 13: "%0D", 0: "%00", 37: "%25", 47: "%2F"})
    assert log.expect("the handler of").getMessage() == f"the handler of {path} failed"


@pytest.mark.parametrize(
    "target",
    [
        *("/..", "/../ws", "/./ws", "//ws", "/ws/", "/ws/..", "/x/../ws", "/%2e%2e/ws", "/%2fws"),
        *("/etc/passwd", "/../../etc/passwd", "/%2e%2e%2fetc%2fpasswd", "/..%5c..%5cwindows"),
        *("/ws%00", "/ws%0d%0a", "/ws;a=b", "/WS", "/%zz", "/pyproject.toml", "/.git/config"),
    ],
)
def test_a_path_is_not_a_file_and_dot_segments_are_text(
    server: Server, clients: Clients, opened: list[str], target: str
) -> None:
    for request in (get(target), upgrade(target)):
        client = clients.connect(server)
        client.send(request)
        expect_refusal(client.read_to_end(), 404)
    assert not opened


def test_a_close_reason_may_contain_any_text(serve: Serve, clients: Clients) -> None:
    """A reason may contain control characters; a long one is refused, not cut."""
    reason = "\r\n\0\x7f\x88\x00 \N{SNOWMAN}"

    def close(ws: WebSocket) -> None:
        with pytest.raises(ValueError, match="123"):
            ws.close(4000, "\r\n" * 62)
        ws.close(4000, reason)

    client = clients.websocket(serve(websocket_app(close)), "/echo")
    assert client.expect_close() == Close(4000, reason)


@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize("bad", ["a\rb", "a\nid: 7", "a\0"], ids=["CR", "LF", "NUL"])
def test_an_event_cannot_forge_another(
    serve: Serve, clients: Clients, field: str, bad: str
) -> None:
    app = App()
    forged: dict[str, Any] = {field: bad}

    @app.sse("/stream")
    def stream(stream: EventStream) -> None:
        with pytest.raises(ValueError, match="CR, LF or NUL"):
            stream.send(ServerSentEvent("forged", **forged))
        stream.send(f"data\rid: 7\nevent: {bad}")
        stream.close()

    client = clients.stream(serve(app), "/stream")
    expected = f"data\nid: 7\nevent: {bad}".replace("\r", "\n")
    assert client.next_event() == ServerSentEvent(expected)
    client.expect_end()
