"""The path of a request: one form for routes, hooks, handlers and logs."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from queue import Queue

import pytest

from tests.support.clients import Clients, Response, get, upgrade
from tests.support.handlers import MessageGenerator, generator_echo, plain_echo
from tests.support.inspection import loops_of, wait_for_disconnects
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import wait_until
from wsframe import HandshakeError
from wsframe.server import App, EventStream, Request, Server, WebSocket
from wsframe.server.http.paths import normal_path
from wsframe.server.sockets.peer import Peer


def echo_with_parameter(ws: WebSocket, x: str) -> MessageGenerator:
    return (yield from generator_echo(ws))


FAT = ("X-Fat", "a" * 12_000)


def ask(clients: Clients, server: Server, request: bytes) -> Response:
    client = clients.connect(server)
    client.send(request)
    return client.answer()


@pytest.fixture
def hooked(serve: Serve) -> tuple[Server, Queue[str]]:
    """A server whose hook refuses paths below /admin, and the paths that handlers received."""
    app = App()
    seen: Queue[str] = Queue()

    def authorize(request: Request) -> bool:
        return not request.path.startswith("/admin")

    def look(ws: WebSocket, **_: str) -> None:
        seen.put(ws.request.path)

    def watch(stream: EventStream, **_: str) -> None:
        seen.put(stream.request.path)
        stream.close()

    for path in ("/admin", "/admin/{page}", "/{a}", "/{a}/{b}", "/{a}/{b}/{c}"):
        app.websocket(path, authorize=authorize)(look)
        app.sse(path, authorize=authorize)(watch)
    return serve(app), seen


ADMIN = ("/admin", "/%61dmin", "/%61%64%6D%69%6e", "/admin/x", "/%61dmin/%2e%2e", "/admin;x")
OTHERS = {
    "/%2Fadmin": "/%2Fadmin",
    "/%2fadmin": "/%2Fadmin",
    "/x/../admin": "/x/../admin",
    "/x/%2E./admin": "/x/../admin",
    "/.%2Fadmin": "/.%2Fadmin",
    "/%2561dmin": "/%2561dmin",
    "/;/admin": "/;/admin",
    "/%00admin": "/%00admin",
    "/%0aadmin": "/%0Aadmin",
    "/ADMIN": "/ADMIN",
    "/%C3%A4dmin": "/ädmin",
    "/%ef%bc%8fadmin": "/\N{FULLWIDTH SOLIDUS}admin",
    "/x%5cadmin": "/x\\admin",
}


@pytest.mark.parametrize("target", [*ADMIN, *(f"http://localhost{path}" for path in ADMIN)])
def test_a_hook_receives_the_path_that_found_the_route(
    hooked: tuple[Server, Queue[str]], clients: Clients, target: str
) -> None:
    server, seen = hooked
    for request in (get(target), upgrade(target)):
        assert ask(clients, server, request).status == 403
    assert seen.empty()


@pytest.mark.parametrize("target", OTHERS)
def test_dot_segments_of_a_path_are_not_resolved(
    hooked: tuple[Server, Queue[str]], clients: Clients, target: str
) -> None:
    server, seen = hooked
    clients.websocket(server, target).expect_close()
    clients.stream(server, target).expect_end()
    assert [seen.get(timeout=10) for _ in range(2)] == [OTHERS[target]] * 2


@pytest.mark.parametrize("target", ["//admin", "/admin/", "//", "/x//y"])
def test_an_empty_segment_is_a_segment(
    hooked: tuple[Server, Queue[str]], clients: Clients, target: str
) -> None:
    assert ask(clients, hooked[0], get(target)).status == 404


def test_two_paths_are_equal_only_if_their_segments_are() -> None:
    for raw in OTHERS:
        normal = normal_path(raw)
        assert normal_path(normal) == normal
        assert normal.count("/") == raw.count("/")
    spellings = ("/a%2Fb", "/a/b", "/a%252Fb", "/a%25252Fb", "/a%", "/a%25", "/a%2525", "/a%0A")
    assert len({normal_path(raw) for raw in spellings}) == len(spellings) - 1  # "%" is "%25"


def test_the_request_log_has_the_path_of_the_route(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    app = App()
    app.page("/admin", "the page")
    access = logging.getLogger("wsframe.access")
    access.addHandler(log)
    access.setLevel(logging.INFO)
    try:
        assert ask(clients, serve(app), get("/%61dmin?a=b")).status == 200
        assert '"GET /admin" 200' in log.expect("/admin", logging.INFO).getMessage()
    finally:
        access.setLevel(logging.NOTSET)
        access.removeHandler(log)


# Patterns for which a backtracking matcher would need exponential time.
PATTERNS = (
    "/{a}.{b}.{c}.{d}.{e}!",
    "/{a}%{b}%{c}%{d}%{e}!",
    "/{a}-{b}-{c}/{d}-{e}-{f}!",
    "/{a}/{b}/{c}/{d}/{e}!",
    "/{a}..{b}..{c}..{d}..{e}!",
    "/{a}é{b}é{c}é{d}é{e}!",
)
FILLINGS = (".", "-", "/", "%2F", "%", "%25", ";", "%C3%A9", "%00", "a", "/.", "-/", "..-")


@pytest.mark.parametrize("filling", FILLINGS)
def test_a_long_path_is_matched_in_linear_time(
    serve: Serve, clients: Clients, filling: str
) -> None:
    app = App()
    for pattern in PATTERNS:
        app.websocket(pattern)(lambda ws, **_: None)
        app.sse(pattern)(lambda stream, **_: None)
    server = serve(app)
    for request in (get, upgrade):
        for size, status in {2000: 404, 8000: 414}.items():
            target = "/" + filling * (size // len(filling))
            assert ask(clients, server, request(target)).status == status


def test_two_parameters_must_have_a_text_between_them() -> None:
    with pytest.raises(ValueError, match="text between"):
        App().page("/{a}{b}", "")


# Targets in absolute-form -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "host", "expected"),
    [
        ("http://localhost/x", "localhost", ("localhost", "/x")),
        ("HTTP://LOCALHOST/x", "localhost", ("LOCALHOST", "/x")),
        ("http://[::1]/x", "[::1]", ("[::1]", "/x")),
        ("http://[::1]:9292/x?y", "[::1]:9292", ("[::1]:9292", "/x")),
        ("http://127.0.0.1:/x", "127.0.0.1", ("127.0.0.1:", "/x")),
        ("ws://localhost/%78", "localhost", ("localhost", "/x")),
        ("http://localhost", "localhost", ("localhost", "/")),
        ("http://localhost?y=/x", "localhost", ("localhost", "/")),
        ("http://localhost//x", "localhost", ("localhost", "//x")),
        # RFC 9112 section 3.2.2: the target takes precedence over the Host header.
        ("http://localhost:81/x", "localhost", ("localhost:81", "/x")),
        ("http://[::1]/x", "127.0.0.1", ("[::1]", "/x")),
    ],
)
def test_the_authority_of_a_target_replaces_the_host_header(
    serve: Serve, clients: Clients, target: str, host: str, expected: tuple[str, str]
) -> None:
    app = App()
    seen: Queue[tuple[str, str]] = Queue()

    def look(ws: WebSocket) -> None:
        seen.put((ws.request.host, ws.request.path))

    for path in ("/x", "/", "//x"):
        app.websocket(path)(look)
    server = serve(app)
    client = clients.connect(server)
    client.send(upgrade(target, changes={"Host": host, "Origin": f"http://{expected[0].lower()}"}))
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    assert seen.get(timeout=10) == expected


def test_an_origin_is_compared_with_the_authority_of_the_target(
    serve: Serve, clients: Clients
) -> None:
    app = App()
    app.websocket("/x")(lambda ws: None)
    changes: dict[str, str | None] = {"Host": "localhost:80", "Origin": "http://localhost"}
    request = upgrade("http://127.0.0.1/x", changes=changes)
    assert ask(clients, serve(app), request).status == 403


# Memory -------------------------------------------------------------------------------------------


def leave(clients: Clients, server: Server, target: str) -> None:
    clients.websocket(server, target, FAT).leave()


def reset(clients: Clients, server: Server, target: str) -> None:
    client = clients.connect(server)
    client.send(upgrade(target, FAT) if target != "/topic" else get(target, FAT))
    client.read_until(b"\r\n\r\n")
    client.reset()


SAME = HandshakeError(401, "always this one")


def refuse_with_the_same(request: Request) -> None:
    raise SAME


def ask_fat(clients: Clients, server: Server, target: str) -> None:
    client = clients.connect(server)
    client.send(get(target, FAT))
    client.read_to_end()
    client.close()


def leave_early(clients: Clients, server: Server, target: str) -> None:
    client = clients.connect(server)
    head = get(target, FAT)[:-1]
    client.send(head)
    wait_until(
        lambda: len(head) in [peer.bytes_in for peer in peers_of(server)], "the part is received"
    )
    client.close()


LEAVING: dict[str, tuple[Callable[[Clients, Server, str], None], str]] = {
    "incomplete head": (leave_early, "/"),
    "page": (ask_fat, "/"),
    "no route": (ask_fat, "/none"),
    "malformed": (ask_fat, "none"),
    "too long": (ask_fat, "/" + "a" * 9000),
    "refused by the hook": (ask_fat, "/forbidden"),
    "refused by an error that is raised again": (ask_fat, "/same"),
    "generator": (leave, "/generator/x"),
    "generator, reset": (reset, "/generator/x"),
    "function": (leave, "/function"),
    "function, reset": (reset, "/function"),
    "stream of a function": (ask_fat, "/stream"),
    "stream of a generator": (ask_fat, "/events"),
    "stream of a topic": (reset, "/topic"),
}


def peers_of(server: Server) -> list[Peer]:
    """Return the connections of this server that are still referenced."""
    found = (item for item in gc.get_objects() if type(item) is Peer)
    return [peer for peer in found if peer.loop in loops_of(server)]


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", LEAVING)
def test_a_closed_connection_leaves_no_reference_cycle(
    serve: Serve, clients: Clients, name: str
) -> None:
    """With the collector disabled, each connection would stay in memory with its head."""

    def events(stream: EventStream) -> Iterator[str]:
        yield "x"

    app = App()
    app.page("/", "x")
    app.websocket("/generator/{x}", authorize=lambda _: True)(echo_with_parameter)
    app.websocket("/function")(plain_echo)
    app.sse("/stream")(lambda stream: stream.close())
    app.sse("/events")(events)
    app.sse("/forbidden", authorize=lambda _: None)(events)
    app.sse("/same", authorize=refuse_with_the_same)(events)
    app.sse("/topic", app.topic("t"))
    server = serve(app)
    act, target = LEAVING[name]

    def end() -> None:
        act(clients, server, target)
        wait_for_disconnects(server)
        wait_until(lambda: not loops_of(server)[0].unfinished, "their handlers are over")

    end()
    gc.collect()
    gc.disable()
    # Objects from before are no concern of the collection below. A server of another test, whose
    # last thread ends late, would be among the garbage.
    gc.freeze()
    try:
        end()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        names = {type(item).__module__ for item in gc.garbage}
        assert not [found for found in names if found.startswith("wsframe.server")]
        # No live object refers to it either, at the latest once its thread is idle.
        wait_until(lambda: not peers_of(server), "the connection is gone")
    finally:
        # The objects stay frozen: the collector would visit thousands of tests each time.
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
