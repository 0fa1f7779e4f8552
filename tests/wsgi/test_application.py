"""The checks of requests before their connection is taken over, and the answers to them."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.support.clients import masked
from tests.support.handlers import plain_echo
from tests.support.log import ServerLog
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until
from wsframe import HandshakeError, Opcode, PerMessageDeflate
from wsframe.fields import Fields
from wsframe.wsgi import Answer, EventStream, Live, Request, WebSocket
from wsframe.wsgi.handlers import Handlers, Options

from .arrived import UPGRADE, Arrived, without_socket
from .conftest import MakeLive

WARNING = 30


def echo(ws: WebSocket) -> Generator[None, str, None]:
    while True:
        ws.send((yield))


def count(stream: EventStream, to: int = 3) -> Iterator[int]:
    yield from range(to)


def say_path(stream: EventStream) -> None:
    request = stream.request
    stream.send(f"{request.method} {request.path} {request.raw_path} {request.query}")
    stream.send(f"{request.client} {request.scheme} {request.host} {request.headers['X-Folded']}")
    stream.close()


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"HTTP_UPGRADE": ""}, 426, "an upgrade is required"),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, 426, "an upgrade is required"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "12"}, 426, "use 13"),
        ({"HTTP_SEC_WEBSOCKET_KEY": "a,b"}, 400, "16 bytes"),
        ({"HTTP_HOST": "a b"}, 400, "Host header is malformed"),
        ({"CONTENT_LENGTH": "1"}, 400, "must not have a body"),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 400, "must not have a body"),
        ({"REQUEST_METHOD": "POST"}, 405, "must use GET"),
        ({"HTTP_ORIGIN": "http://evil.example"}, 403, "Origin is not allowed"),
        ({"PATH_INFO": "/\xff"}, 400, "not valid UTF-8"),
        ({"PATH_INFO": "/\u20ac"}, 400, "not valid UTF-8"),
        ({"PATH_INFO": "/" + "x" * 3000}, 414, "the path exceeds"),
        ({"QUERY_STRING": "&" * 500}, 400, "more than 500 parameters"),
        ({"HTTP_X_LONG": "x" * 17_000}, 431, "exceeds 16384 bytes"),
        ({f"HTTP_X_{number}": "x" for number in range(100)}, 431, "more than 100 headers"),
    ],
)
def test_a_request_is_refused_with_an_ordinary_answer(
    live: Live, changes: dict[str, str], status: int, reason: str, log: ServerLog
) -> None:
    with Arrived(**UPGRADE) as arrived:
        arrived.environ.update(changes)
        body = arrived.serve(live.websocket(echo))
        assert (arrived.status, len(arrived.started)) == (status, 1)
        assert reason in body.decode()
        assert arrived.header("Content-Length") == str(len(body))
        assert not {"Connection", "Upgrade"} & dict(arrived.started[0][1]).keys()
        arrived.sock.sendall(b"x")
        assert arrived.client.recv(9) == b"x"
    assert sum(live.stats().refused.values()) == 1
    log.expect(f"is refused with {status}", WARNING)


def test_the_limits_of_a_head_are_settings(make_live: MakeLive, log: ServerLog) -> None:
    live = make_live(max_head_size=20_000, max_headers=150)
    longer = {f"HTTP_X_{number}": "x" for number in range(100)} | {"HTTP_X_LONG": "x" * 17_000}
    with Arrived(**UPGRADE, **longer) as arrived:
        assert arrived.serve(live.websocket(echo)) == b""
        assert arrived.status == 101
    with Arrived(**UPGRADE, HTTP_X_LONG="x" * 20_000) as arrived:
        arrived.serve(live.websocket(echo))
        assert arrived.status == 431
    log.expect("exceeds 20000 bytes. The limit is the setting max_head_size", WARNING)


def test_a_refusal_of_head_has_no_body(live: Live) -> None:
    with Arrived(REQUEST_METHOD="HEAD") as arrived:
        assert arrived.serve(live.websocket(echo)) == b""
        assert arrived.status == 426


def test_a_head_request_for_an_event_stream_is_answered_with_its_headers(live: Live) -> None:
    with Arrived(REQUEST_METHOD="HEAD") as arrived:
        assert arrived.serve(live.events(count)) == b""
        assert arrived.status == 200
        assert arrived.header("Content-Type") == "text/event-stream; charset=utf-8"


def test_a_request_of_http_1_0_needs_no_host(live: Live) -> None:
    with Arrived(SERVER_PROTOCOL="HTTP/1.0") as arrived:
        del arrived.environ["HTTP_HOST"]
        arrived.serve(live.events(count))
        arrived.receive_until(b"data: 2\n\n")


def test_a_framework_may_add_headers_to_an_answer(live: Live) -> None:
    with Arrived() as arrived:
        reply = live.websocket(echo).open(arrived.environ)
        assert isinstance(reply, Answer)
        reply.add_headers([("Set-Cookie", "a=1"), ("Content-Length", "0")])
        reply.start(arrived.start_response)
        assert arrived.header("Set-Cookie") == "a=1"
        assert arrived.header("Content-Length") == str(len(reply.body))


def test_a_stream_that_has_ended_is_answered_with_204(live: Live) -> None:
    with Arrived(HTTP_LAST_EVENT_ID=":end") as arrived:
        assert arrived.serve(live.events(count)) == b""
        assert arrived.status == 204
        assert arrived.header("Cache-Control") == "no-store"


def test_the_hosts_that_are_served_can_be_limited(make_live: MakeLive) -> None:
    live = make_live(hosts=["example.com"])
    with Arrived(**UPGRADE) as arrived:
        arrived.serve(live.websocket(echo))
        assert arrived.status == 421


def test_a_trusted_proxy_reports_the_client(make_live: MakeLive) -> None:
    live = make_live(trusted_proxies=["127.0.0.1"])
    changes = {"HTTP_X_FORWARDED_FOR": "192.0.2.7", "HTTP_X_FOLDED": "", "SCRIPT_NAME": ""}
    with Arrived(**changes) as arrived:
        arrived.serve(live.events(say_path))
        assert b"data: 192.0.2.7 http localhost" in arrived.receive_until(b"localhost")


def test_a_handler_sees_the_request(live: Live) -> None:
    changes = {
        "REQUEST_METHOD": "PUT",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/a b/\xc3\xa9%",
        "QUERY_STRING": "x=1&x=2",
        "HTTP_X_FOLDED": "one\r\n two",
        "CONTENT_TYPE": "text/plain",
        "wsgi.url_scheme": "https",
    }
    with Arrived(**changes) as arrived:
        arrived.serve(live.events(say_path))
        expected = "data: PUT /app/a b/é%25 /app/a%20b/%C3%A9%25 {'x': ['1', '2']}\n"
        assert expected.encode() in arrived.receive_until(b"}\n")
        assert b"127.0.0.1 https localhost one  two" in arrived.receive_until(b"two")


# Options -----------------------------------------------------------------------------------------


def test_the_options_of_a_handler_apply(live: Live) -> None:
    @live.handler(
        subprotocols=["chat"],
        origins=["https://example.com"],
        deflate=True,
        max_message_size=10,
        blocking=True,
    )
    def handler(ws: WebSocket) -> Generator[None, str, None]:
        ws.send(f"hello {ws.subprotocol}", False)
        yield

    changes = {
        **UPGRADE,
        "HTTP_ORIGIN": "https://example.com",
        "HTTP_SEC_WEBSOCKET_PROTOCOL": "other, chat",
        "HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate",
    }
    with Arrived(**changes) as arrived:
        arrived.serve(live.websocket(handler))
        head = arrived.receive_until()
        assert b"Sec-WebSocket-Protocol: chat\r\n" in head
        assert b"permessage-deflate; server_no_context_takeover" in head
        arrived.receive_until(b"hello chat")
        arrived.client.sendall(masked(Opcode.TEXT, "x" * 11))
        assert arrived.client.recv(4)[2:] == (1009).to_bytes(2, "big")


def test_a_silent_stream_sends_heartbeat_events(make_live: MakeLive) -> None:
    live = make_live(heartbeat=0.05, heartbeat_event="setting")

    @live.handler(heartbeat_event="option")
    def handler(stream: EventStream) -> None:
        stream.send("hello")

    option, setting = live.events(handler), live.events(live.topic("news"))
    for application, event in [(option, "option"), (setting, "setting")]:
        with Arrived() as arrived:
            arrived.serve(application)
            arrived.receive_until(f"\n\nevent: {event}\ndata: \n\n".encode())
    with without_socket() as arrived:
        reply = arrived.call(live.events(handler))
        data = b""
        while not data.endswith(b"\n\nevent: option\ndata: \n\n"):
            data += next(reply)
        reply.close()
    with pytest.raises(ValueError, match="heartbeat_event must be another type"):
        live.handler(heartbeat_event="end")


def test_topics_are_shared_over_redis(redis_server: RedisServer, make_live: MakeLive) -> None:
    lives = [make_live(redis=redis_server.url) for _ in range(2)]
    with Arrived() as here, Arrived() as there:
        for live, arrived in zip(lives, (here, there), strict=True):
            arrived.serve(live.events(live.topic("news")))
            arrived.receive_until(b"\nid: ")  # the position from which events are sent
        lives[0].topic("news").publish("hello")
        for arrived in (here, there):
            arrived.receive_until(b"\ndata: hello\n\n")


def test_the_options_can_be_changed(live: Live) -> None:
    live.handler(subprotocols=["one"])(echo)
    live.websocket(echo)
    live.events(count)
    live.handler(subprotocols=["two"], deflate=PerMessageDeflate())(echo)
    live.handler(subprotocols=["two"], deflate=PerMessageDeflate())(echo)
    with Arrived(**UPGRADE, HTTP_SEC_WEBSOCKET_PROTOCOL="one, two") as arrived:
        arrived.serve(live.websocket(echo))
        assert b"Protocol: two\r\n" in arrived.receive_until()


def test_options_that_are_changed_again_and_again_add_no_routes() -> None:
    handlers = Handlers()

    def routes(size: int) -> tuple[object, object]:
        for handler in (echo, count):
            handlers.set(handler, Options(max_message_size=size))
        return handlers.websocket(echo), handlers.stream(count)

    assert len({route for _ in range(5) for size in (1, 2) for route in routes(size)}) == 4


def test_the_origins_of_a_live_apply_to_topics_and_other_handlers(make_live: MakeLive) -> None:
    live = make_live(origins=["https://example.com"])
    origin = {"HTTP_ORIGIN": "https://example.com"}
    for application in (live.events(live.topic("news")), live.events(count)):
        with Arrived(**origin) as arrived:
            arrived.serve(application)
            head = arrived.receive_until()
            assert b"Access-Control-Allow-Origin: https://example.com\r\n" in head
    with Arrived(**origin, **UPGRADE) as arrived:
        arrived.serve(live.websocket(echo))
        assert arrived.receive_until().startswith(b"HTTP/1.1 101 ")


def test_a_preflight_request_is_answered(make_live: MakeLive) -> None:
    live = make_live(origins=["https://example.com"])
    changes = {
        "REQUEST_METHOD": "OPTIONS",
        "HTTP_ORIGIN": "https://example.com",
        "HTTP_ACCESS_CONTROL_REQUEST_METHOD": "POST",
    }
    with Arrived(**changes) as arrived:
        assert arrived.serve(live.events(count)) == b""
        assert arrived.status == 204
        assert arrived.header("Access-Control-Allow-Methods") == "GET, HEAD"


def test_a_page_of_another_site_can_read_a_refusal(make_live: MakeLive) -> None:
    live = make_live(origins=["https://example.com"])
    live.stop()
    with Arrived(HTTP_ORIGIN="https://example.com") as arrived:
        arrived.serve(live.events(count))
        assert arrived.status == 503
        assert arrived.header("Access-Control-Allow-Origin") == "https://example.com"


class Sayer:
    """A handler that is not a function."""

    def __init__(self, word: str) -> None:
        self.word = word

    def handler(self, stream: EventStream) -> None:
        stream.send(self.word)

    def __call__(self, stream: EventStream) -> None:
        stream.send(self.word)


def say(word: str, stream: EventStream) -> None:
    stream.send(word)


def say_word(stream: EventStream) -> None:
    stream.send("word")


def decorated(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def wrapper(*arguments: Any, **named: Any) -> Any:
        return handler(*arguments, **named)

    return wrapper


@pytest.mark.parametrize(
    "handler",
    [
        Sayer("word").handler,
        Sayer("word"),
        functools.partial(say, "word"),
        decorated(say_word),
    ],
)
def test_a_handler_may_be_any_callable(live: Live, handler: Callable[..., Any]) -> None:
    with Arrived() as arrived:
        arrived.serve(live.events(handler))
        arrived.receive_until(b"data: word\n\n")


def test_functions_that_are_defined_anew_share_the_options_of_their_code(live: Live) -> None:
    def make() -> Callable[[WebSocket], Any]:
        @live.handler(subprotocols=["chat"])
        def handler(ws: WebSocket) -> None:
            """Return at once."""

        return decorated(handler)

    make()
    for _ in range(3):
        with Arrived(**UPGRADE, HTTP_SEC_WEBSOCKET_PROTOCOL="chat") as arrived:
            arrived.serve(live.websocket(make()))
            assert b"Protocol: chat\r\n" in arrived.receive_until()


# Arguments ---------------------------------------------------------------------------------------


async def coroutine(ws: WebSocket) -> None: ...


def test_a_handler_must_accept_its_arguments(live: Live) -> None:
    for open_ in (live.websocket, live.events):
        with pytest.raises(TypeError, match=r"count.* must take the connection, other: "):
            open_(count, other=1)
        with pytest.raises(TypeError, match="plain or a generator function"):
            open_(coroutine)
    with pytest.raises(TypeError, match="a topic has no arguments: room"):
        live.events(live.topic("news"), room=1)


def test_arguments_of_the_constructor_are_checked() -> None:
    with pytest.raises(TypeError, match="settings that the WSGI server decides: cert, unix"):
        Live(unix="/socket", cert="file")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword"):
        Live(nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="origins must be a sequence"):
        Live(origins="https://example.com")
    with pytest.raises(ValueError, match="drain must not be negative"):
        Live(drain=-1)


def test_options_of_handlers_are_checked(live: Live) -> None:
    with pytest.raises(TypeError, match="subprotocols must be a sequence"):
        live.handler(subprotocols="chat")
    with pytest.raises(ValueError, match="can never match"):
        live.handler(origins=["example.com"])
    with pytest.raises(ValueError, match="max_message_size"):
        live.handler(max_message_size=0)


# Bodies ------------------------------------------------------------------------------------------


def post(size: int, source: Any = None, **changes: Any) -> Arrived:
    """Return a POST request with an unread body, on a server that ends the input with it."""
    source = io.BytesIO(b"x" * size) if source is None else source
    return Arrived(
        **{
            "REQUEST_METHOD": "POST",
            "CONTENT_LENGTH": str(size),
            "wsgi.input": source,
            **changes,
        }
    )


@pytest.mark.parametrize("size", [0, 1, 64 * 1024])
def test_up_to_64_kib_of_an_unread_body_are_discarded(live: Live, size: int) -> None:
    with post(size) as arrived:
        arrived.serve(live.events(count))
        assert arrived.status == 200
        assert arrived.environ["wsgi.input"].read() == b""
        arrived.receive_until(b"data: 2\n\n")


def test_a_longer_unread_body_is_refused_with_413(live: Live, log: ServerLog) -> None:
    for size, read in ((65_537, 65_537), (131_072, 131_072), (1_000_000, 131_072)):
        with post(size) as arrived:
            assert b"65536 bytes" in arrived.serve(live.events(count))
            assert arrived.status == 413
            assert arrived.environ["wsgi.input"].tell() == read
    log.expect("is refused with 413", WARNING)
    assert live.stats().refused_for == {"too_large": 3}


def test_a_chunked_body_is_discarded_by_the_server(live: Live) -> None:
    changes = {"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    with post(0, io.BytesIO(b"x" * 300_000), **changes) as arrived:
        arrived.serve(live.events(count))
        assert arrived.status == 413
        assert arrived.environ["wsgi.input"].tell() == 131_072


def test_a_refused_request_may_have_too_many_chunks(live: Live) -> None:
    changes = {**UPGRADE, "CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}
    with post(0, io.BytesIO(b"x" * 70_000), **changes) as arrived:
        arrived.serve(live.websocket(echo))
        assert arrived.status == 400


def test_a_malformed_body_is_refused_with_400(live: Live) -> None:
    class Malformed:
        def read(self, size: int) -> bytes:
            raise ArithmeticError("invalid chunk size")

    with post(10, Malformed()) as arrived:
        assert arrived.serve(live.events(count)) == b"the body of the request is malformed\n"
        assert arrived.status == 400


def test_a_body_that_the_application_has_read_is_no_limit(live: Live) -> None:
    with post(1_000_000) as arrived:
        arrived.environ["wsgi.input"].read()
        arrived.serve(live.events(count))
        assert arrived.status == 200


# Without a socket --------------------------------------------------------------------------------


def test_without_a_socket_websockets_are_not_possible(live: Live, log: ServerLog) -> None:
    with without_socket(**UPGRADE) as arrived:
        body = arrived.serve(live.websocket(echo))
        assert arrived.status == 501
        assert body == (
            b"WebSockets are not possible: granian has no socket that can be taken over\n"
        )
    log.expect("Run the application with gunicorn", WARNING)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"SERVER_PROTOCOL": "HTTP/2.0"}, "requests of HTTP/2.0 share a connection"),
        ({"wsgi.run_once": True}, "the server runs each request in its own process"),
        ({"wsgi.multiprocess": True}, "Werkzeug forks a process for each request"),
    ],
)
def test_a_connection_that_cannot_be_taken_is_left_alone(
    live: Live, changes: dict[str, Any], problem: str, log: ServerLog
) -> None:
    with Arrived(**changes) as arrived:
        reply = arrived.call(live.events(count))
        assert b"".join(reply).endswith(b"data: 2\n\nevent: end\nid: :end\n\n")
        reply.close()
        assert arrived.status == 200
        arrived.sock.sendall(b"x")
        assert arrived.client.recv(9) == b"x"
    log.expect(f"each event stream holds a thread of the WSGI server, because {problem}", WARNING)
    with Arrived(**{**changes, **UPGRADE, "SERVER_PROTOCOL": "HTTP/1.1"}) as arrived:
        arrived.serve(live.websocket(echo))
        assert arrived.status == (501 if "SERVER_PROTOCOL" not in changes else 101)


# Integrations ------------------------------------------------------------------------------------


class Framework(Live):
    """An integration of a framework."""

    def bind(
        self, handler: Callable[..., Any], arguments: dict[str, Any], environ: dict[str, Any]
    ) -> Callable[..., Any]:
        """Pass the user of the request."""
        return functools.partial(handler, **{**arguments, "user": environ["user"]})

    def check_origin(
        self, environ: Any, request: Request, fields: Fields, origins: Any
    ) -> str | None:
        """Refuse every page, unless the environment allows it."""
        if environ.get("allowed"):
            return None
        raise HandshakeError(403, "refused by the framework")


def test_an_integration_decides_about_origins_and_handlers(make_live: MakeLive) -> None:
    live = make_live(Framework)

    def handler(ws: WebSocket, user: str, room: str) -> Generator[None, str, None]:
        ws.send(f"{user} in {room}")
        yield

    application = live.websocket(handler, user="", room="the hall")
    with Arrived(**UPGRADE, user="Ada") as arrived:
        assert arrived.serve(application) == b"refused by the framework\n"
    with Arrived(**UPGRADE, user="Ada", allowed=True) as arrived:
        arrived.serve(application)
        arrived.receive_until(b"Ada in the hall")


def test_a_plain_function_may_handle_websockets(live: Live) -> None:
    with Arrived(**UPGRADE) as arrived:
        arrived.serve(live.websocket(plain_echo))
        arrived.receive_until()
        arrived.client.sendall(masked(Opcode.TEXT, "hello"))
        arrived.receive_until(b"hello")
    wait_until(lambda: not live.stats().websockets, "the connection has ended")
