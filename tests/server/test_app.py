"""App: its handlers, and how it is started and stopped."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from queue import Queue
from typing import Any

import pytest

from tests.server.apps import ask, pages, parameters_app
from tests.support.clients import Clients, get, upgrade
from tests.support.handlers import MessageGenerator, generator_echo, websocket_app
from tests.support.serving import Serve, stop_within
from wsframe.server import App, EventStream, Request, Server, WebSocket


async def coroutine(ws: WebSocket) -> None: ...


async def asynchronous_generator(ws: WebSocket) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("handler", [coroutine, asynchronous_generator])
def test_an_async_handler_is_refused_at_once(handler: Any) -> None:
    app = App()
    with pytest.raises(TypeError, match="'/x' must be a plain or a generator function"):
        app.websocket("/x")(handler)
    with pytest.raises(TypeError, match="'/x' must be a plain or a generator function"):
        app.sse("/x")(handler)


@pytest.mark.parametrize(
    ("path", "handler"),
    [
        ("/x", lambda: None),
        ("/x", lambda ws, room: None),
        ("/{room}", lambda ws: None),
        ("/{room}", lambda ws, name: None),
        ("/{room}", lambda ws, room, /: None),
        ("/{ws}", lambda ws: None),
        ("/x", lambda *, ws: None),
    ],
)
def test_a_handler_that_cannot_be_called_is_refused_at_once(
    path: str, handler: Callable[..., None]
) -> None:
    app = App()
    with pytest.raises(TypeError, match="must take the connection"):
        app.websocket(path)(handler)
    with pytest.raises(TypeError, match="must take the connection"):
        app.sse(path)(handler)
    app.page(path, "the path is free")


def test_a_decorator_returns_the_handler() -> None:
    app = App()
    assert app.websocket("/echo")(generator_echo) is generator_echo

    def stream(stream: object) -> None: ...

    assert app.sse("/stream")(stream) is stream


def test_methods_and_partial_functions_can_be_handlers(serve: Serve, clients: Clients) -> None:
    class Room:
        def enter(self, ws: WebSocket, name: str) -> MessageGenerator:
            message = yield
            ws.send(f"{message!r} to {name}")

    def greet(greeting: str, ws: WebSocket) -> None:
        ws.send(greeting)

    app = App()
    app.websocket("/rooms/{name}")(Room().enter)
    app.websocket("/hello")(partial(greet, "hello"))
    server = serve(app)
    client = clients.websocket(server, "/rooms/blue")
    client.send_messages("welcome")
    assert client.next_event() == "'welcome' to blue"
    assert clients.websocket(server, "/hello").next_event() == "hello"


def test_a_handler_sees_its_request(serve: Serve, clients: Clients) -> None:
    seen: Queue[Request] = Queue()

    def look(ws: WebSocket, **_: str) -> None:
        seen.put(ws.request)

    server = serve(websocket_app(look, "/look/{what}"))
    client = clients.websocket(
        server, "/look/%41?a=1&b=%20&a=2&c", ("X-Twice", "1"), ("x-twice", "2")
    )
    address = client.sock.getsockname()
    client.expect_close()
    request = seen.get(timeout=10)
    assert (request.method, request.http_version) == ("GET", "1.1")
    assert (request.path, request.raw_path) == ("/look/A", "/look/%41")
    assert request.query == {"a": ["1", "2"], "b": [" "], "c": [""]}
    assert request.parameters == {"what": "A"}
    assert request.headers["HOST"] == "localhost"
    assert request.headers.get_all("X-TWICE") == ["1", "2"]
    assert request.address == address


def test_port_0_chooses_a_free_port(serve: Serve) -> None:
    one, other = serve(pages()), serve(pages())
    assert one.port != other.port
    assert min(one.port, other.port) > 0
    assert one.url == f"http://127.0.0.1:{one.port}"
    assert ask(one, get("/")).status == ask(other, get("/")).status == 200


def listens_on(host: str) -> bool:
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_the_server_listens_on_all_addresses_of_a_host_name() -> None:
    with pages().start() as server:
        assert server.host == "localhost"
        assert server.url == f"http://localhost:{server.port}"
        found = socket.getaddrinfo("localhost", server.port, type=socket.SOCK_STREAM)
        for _, _, _, _, address in found:
            assert ask(server, get("/"), host=str(address[0])).status == 200


def test_an_empty_host_listens_on_every_interface() -> None:
    with pages().start("") as server:
        assert server.url == f"http://localhost:{server.port}"
        assert ask(server, get("/")).status == 200
        if listens_on("::1"):
            assert ask(server, get("/"), host="::1").status == 200


def test_an_ipv6_address_is_written_in_brackets() -> None:
    if not listens_on("::1"):
        pytest.skip("this machine has no IPv6")
    with pages().start("::1") as server:
        assert server.url == f"http://[::1]:{server.port}"
        assert ask(server, get("/"), host="::1").status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", ""])
def test_a_port_in_use_is_an_error(serve: Serve, host: str) -> None:
    server = serve(pages())
    with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
        pages().start(host, server.port)


@pytest.mark.parametrize("variable", ["WERKZEUG_RUN_MAIN", "RUN_MAIN"])
def test_the_error_of_a_port_in_use_explains_the_reloader(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    server = serve(pages())
    monkeypatch.setenv(variable, "true")
    with pytest.raises(OSError, match=rf'in two processes.*environ\.get\("{variable}"\)') as raised:
        pages().start("127.0.0.1", server.port)
    assert raised.value.errno == errno.EADDRINUSE


def test_a_decorator_without_a_path_is_refused() -> None:
    app: Any = App()
    for name in ("websocket", "sse"):
        with pytest.raises(TypeError) as raised:
            getattr(app, name)(generator_echo)
        assert str(raised.value) == f'path must be str, not function; use @app.{name}("/path")'
    with pytest.raises(TypeError, match=r"^path must be str, not function$"):
        app.page(generator_echo, "")
    with pytest.raises(TypeError, match=r"^path must be str, not int$"):
        app.websocket(42)


def test_an_unknown_host_is_an_error() -> None:
    with pytest.raises(OSError, match=r".+"):
        pages().start("no such host")


def test_a_port_can_be_used_again_after_a_stop(serve: Serve, clients: Clients) -> None:
    app = websocket_app(generator_echo)
    with app.start("127.0.0.1") as server:
        client = clients.websocket(server, "/echo")
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert client.expect_close().code == 1001
        stopping.join(10)
    with pytest.raises(ConnectionRefusedError):
        clients.connect(server)
    # The same app, on the same port, with connections of the first in TIME_WAIT.
    with app.start("127.0.0.1", server.port) as again:
        client = clients.websocket(again, "/echo")
        client.send_messages("again")
        assert client.next_event() == "again"
        client.leave()


def test_a_server_is_a_context_manager_that_stops_on_errors_too() -> None:
    with pytest.raises(ZeroDivisionError), pages().start("127.0.0.1") as server:  # noqa: PT012
        assert ask(server, get("/")).status == 200
        _ = 1 / 0
    with pytest.raises(ConnectionRefusedError):
        ask(server, get("/"))


def test_stop_can_be_called_twice_and_by_several_threads(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo), drain=10)
    client = clients.websocket(server, "/echo")
    threads = [threading.Thread(target=server.stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert client.next_event().code == 1001  # type: ignore[union-attr]
    assert all(thread.is_alive() for thread in threads)  # each waits for the client's close frame
    client.send(client.codec.close(1001))
    client.expect_end()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    server.stop()


def test_a_server_without_clients_stops_at_once() -> None:
    pages().start("127.0.0.1").stop(drain=0)


def test_a_handler_cannot_stop_its_server(serve: Serve, clients: Clients) -> None:
    servers: list[Server] = []
    refused: Queue[str] = Queue()

    def stop() -> None:
        try:
            servers[0].stop()
        except RuntimeError as error:
            refused.put(str(error))

    def plain(ws: WebSocket) -> None:
        stop()

    def generator(ws: WebSocket) -> MessageGenerator:
        stop()
        yield

    app = App()
    app.websocket("/plain")(plain)
    app.websocket("/generator")(generator)
    servers.append(serve(app))
    for path in ("/plain", "/generator"):
        clients.websocket(servers[0], path)
        assert "a handler cannot wait for its own end" in refused.get(timeout=10)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_servers_that_share_a_queue_can_stop_one_by_one(
    serve: Serve, clients: Clients, order: tuple[int, int]
) -> None:
    ticks: Queue[str] = Queue()
    app = App()
    app.sse("/time", source=ticks)
    servers = [serve(app), serve(app)]
    first, second = (servers[number] for number in order)
    client = clients.stream(second, "/time")
    stop_within(first, 10)
    ticks.put("still here")
    assert client.expect(1) == ["still here"]
    client.close()
    stop_within(second, 10)
    assert ticks.empty()


@pytest.mark.parametrize("spelling", ["/caf%C3%A9/a", "/%63af%c3%a9/a", "/caf%C3%A9/%61"])
@pytest.mark.parametrize("pattern", ["/café/a", "/caf%C3%A9/a", "/café/{name}"])
def test_equivalent_spellings_of_a_path_are_one_path(
    serve: Serve, clients: Clients, pattern: str, spelling: str
) -> None:
    client = clients.websocket(serve(parameters_app(pattern)), spelling)
    assert client.next_event() == repr((pattern, {"name": "a"} if "{" in pattern else {}))


@pytest.mark.parametrize("path", ["/plain", "/stream"])
def test_a_request_is_answered_with_503_when_no_thread_can_be_started(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    app = websocket_app(generator_echo)

    @app.websocket("/plain")
    def plain(ws: WebSocket) -> None:
        ws.send("late, but served")

    @app.sse("/stream")
    def stream(stream: EventStream) -> Iterator[str]:
        yield "late, but served"

    server = serve(app)
    with monkeypatch.context() as patch:

        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", start)
        answer = ask(server, upgrade(path) if path == "/plain" else get(path))
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        echo = clients.websocket(server, "/echo")
        echo.send_messages("still here")
        assert echo.next_event() == "still here"
    if path == "/plain":
        assert clients.websocket(server, path).next_event() == "late, but served"
    else:
        assert clients.stream(server, path).next_event().data == "late, but served"


@pytest.mark.parametrize("size", [0, -1])
def test_the_memory_of_topics_must_be_positive(size: int) -> None:
    with pytest.raises(ValueError, match=f"topic_memory must be positive: {size}"):
        App(topic_memory=size)


def test_an_app_is_closed_only_after_its_server(serve: Serve) -> None:
    app = pages()
    server = serve(app)
    with pytest.raises(RuntimeError, match="stop its server first"):
        app.close()
    server.stop()
    app.close()
