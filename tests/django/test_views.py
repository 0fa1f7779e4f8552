"""Views: handlers and topics in a URLconf, and within views, with all middleware."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from logging import WARNING
from typing import Any

import pytest
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished
from django.http import HttpRequest, HttpResponseBase
from django.test import AsyncRequestFactory, RequestFactory
from django.test.client import Client as DjangoClient
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from tests.support.clients import Client, StreamClient, WebSocketClient, get, upgrade
from tests.support.log import ServerLog
from tests.support.waiting import wait_until
from tests.wsgi import running
from wsframe.django import EventStream, Live, WebSocket

from .conftest import MakeLive, Serve, site


def greet(request: HttpRequest, ws: WebSocket, room: str) -> Generator[None, str, None]:
    ws.send(f"{request.user} in {room}")
    while True:
        ws.send((yield))


def count(request: HttpRequest, stream: EventStream, to: int) -> Iterator[int]:
    yield from range(to)


def body(request: HttpRequest, stream: EventStream) -> Iterator[str]:
    yield request.POST.get("prompt") or request.body.decode()


def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """Return the status and the whole answer to a request."""
    client = Client(port)
    client.send(request)
    answer = client.read_to_end()
    client.close()
    return int(answer.split()[1]), answer


def post(target: str, content: bytes, *headers: tuple[str, str]) -> bytes:
    length = ("Content-Length", str(len(content)))
    return get(target, length, *headers, method="POST") + content


def test_a_handler_in_a_urlconf_knows_the_user(
    live: Live, serve: Serve, session: tuple[str, str]
) -> None:
    port = serve([path("rooms/<room>/", live.websocket(greet))])
    client = WebSocketClient(port, "/rooms/hall/", session)
    assert client.expect(1) == ["ada in hall"]
    client.send_messages("a", "b")
    assert client.expect(2) == ["a", "b"]
    assert client.leave().code == 1000
    anonymous = WebSocketClient(port, "/rooms/hall/")
    assert anonymous.expect(1) == ["AnonymousUser in hall"]
    anonymous.close()


def test_a_view_checks_a_request_and_returns_the_response_of_a_handler(
    live: Live, serve: Serve, session: tuple[str, str]
) -> None:
    @login_required
    def room(request: HttpRequest, room: str) -> HttpResponseBase:
        assert request.user.is_authenticated
        return live.websocket(show, room=room.upper(), owner=request.user)(request)

    def show(request: HttpRequest, ws: WebSocket, room: str, owner: Any) -> None:
        ws.send(f"{room} of {type(owner).__name__} {owner}")

    port = serve([path("rooms/<room>/", room)])
    assert ask(port, upgrade("/rooms/hall/"))[0] == 302
    client = WebSocketClient(port, "/rooms/hall/", session)
    assert client.expect(1) == ["HALL of User ada"]
    client.close()


def test_a_decorated_handler_is_a_view_with_its_name_and_options(live: Live, serve: Serve) -> None:
    @live.websocket
    @live.handler(subprotocols=["chat"])
    def talk(request: HttpRequest, ws: WebSocket) -> None:
        """Talk."""
        ws.send(str(ws.subprotocol))

    assert (vars(talk)["__wrapped__"].__name__, talk.__doc__) == ("talk", "Talk.")
    client = WebSocketClient(serve([path("", talk)]), "/", ("Sec-WebSocket-Protocol", "chat"))
    assert client.expect(1) == ["chat"]
    client.close()


def test_the_connections_of_a_user_are_closed(
    live: Live, serve: Serve, session: tuple[str, str]
) -> None:
    def listen(request: HttpRequest) -> HttpResponseBase:
        return live.events(live.topic("news"), identity=request.user.pk)(request)

    def talk(request: HttpRequest) -> HttpResponseBase:
        return live.websocket(greet, identity=request.user.pk, room="hall")(request)

    def identify(request: HttpRequest, ws: WebSocket, identity: str) -> Generator[None, str, None]:
        ws.identify(f"{request.user.pk}")
        ws.send(identity)  # a parameter of the URL, which is not the identity of the connection
        yield

    port = serve(
        [
            path("news/", listen),
            path("talk/", talk),
            path("own/<identity>/", live.websocket(identify)),
        ]
    )
    news = StreamClient(port, "/news/", session)
    talks = [WebSocketClient(port, where, session) for where in ("/talk/", "/own/x/")]
    anonymous = WebSocketClient(port, "/talk/")
    assert [client.expect(1) for client in talks] == [["ada in hall"], ["x"]]
    anonymous.expect(1)
    names = {info.identity for info in live.connections()}
    assert None in names
    [name] = names - {None}
    assert name is not None
    live.close_identity(int(name))
    news.expect_end()
    assert {client.expect_close().code for client in talks} == {1008}
    anonymous.send_messages("open")
    assert anonymous.expect(1) == ["open"]
    for client in (news, *talks, anonymous):
        client.close()


def test_a_topic_is_a_view(live: Live, serve: Serve) -> None:
    news = live.topic("news")
    stream = StreamClient(serve([path("news/", live.events(news))]), "/news/")
    stream.read_opening()
    news.publish("hello")
    assert stream.expect(1) == ["hello"]
    stream.close()


def test_middleware_adds_headers_to_the_101_and_the_200(live: Live, serve: Serve) -> None:
    def counted(request: HttpRequest) -> HttpResponseBase:
        request.session["counted"] = True
        view = live.events(count) if request.method == "POST" else live.websocket(greet, room="a")
        return view(request, **({"to": 2} if request.method == "POST" else {}))

    port = serve([path("", csrf_exempt(counted))])
    client = WebSocketClient(port, "/", ("Accept-Encoding", "gzip"))
    assert client.headers["Set-Cookie"].startswith("sessionid=")
    assert client.headers["X-Frame-Options"] == "DENY"
    assert client.headers["Content-Type"] is None
    assert client.headers["Content-Encoding"] is None
    client.expect(1)
    client.close()
    stream = Client(port)
    stream.send(post("/", b"", ("Accept-Encoding", "gzip")))
    head = stream.read_until(b"\r\n\r\n")
    assert b"Set-Cookie: sessionid=" in head
    assert b"Content-Encoding" not in head
    assert head.count(b"Content-Type: ") == 1
    stream.read_until(b"data: 1\n\n")
    stream.close()


def test_headers_of_the_settings_and_of_a_handler(make_live: MakeLive, serve: Serve) -> None:
    live = make_live(headers={"X-A": "settings"})

    @live.websocket
    @live.handler(headers={"X-B": "handler"})
    def talk(request: HttpRequest, ws: WebSocket) -> None:
        ws.receive()

    port = serve([path("", talk)])
    client = WebSocketClient(port, "/")
    assert (client.headers["X-A"], client.headers["X-B"]) == ("settings", "handler")
    client.close()
    status, answer = ask(port, get("/"))
    assert (status, b"\r\nX-A: settings\r\n" in answer) == (426, True)


def test_a_refusal_is_a_response_that_passes_middleware(live: Live, serve: Serve) -> None:
    port = serve([path("", live.websocket(greet, room="a"))])
    status, answer = ask(port, upgrade("/", ("Origin", "http://evil.example")))
    assert status == 403
    assert b"X-Frame-Options: DENY\r\n" in answer
    assert answer.endswith(b"this Origin is not allowed\n")
    assert ask(port, get("/"))[0] == 426


def test_django_refuses_a_host_that_is_not_allowed(live: Live, serve: Serve) -> None:
    port = serve([path("", live.websocket(greet, room="a"))])
    assert ask(port, upgrade("/", changes={"Host": "evil.example"}))[0] == 400


@pytest.mark.parametrize("size", [10, 60_000])
def test_a_handler_reads_a_body_that_no_view_has_read(live: Live, serve: Serve, size: int) -> None:
    port = serve([path("", csrf_exempt(live.events(body)))])
    _, answer = ask(port, post("/", b"x" * size, ("Content-Type", "text/plain")))
    assert b"data: " + b"x" * size + b"\n\n" in answer
    form = ("Content-Type", "application/x-www-form-urlencoded")
    _, answer = ask(port, post("/", b"prompt=" + b"y" * size, form))
    assert b"data: " + b"y" * size + b"\n\n" in answer


def test_a_longer_body_is_refused_unless_a_view_reads_it(live: Live, serve: Serve) -> None:
    @csrf_exempt
    def reading(request: HttpRequest) -> HttpResponseBase:
        return live.events(count, to=len(request.body) // 50_000)(request)

    port = serve([path("", csrf_exempt(live.events(body))), path("reading/", reading)])
    plain = ("Content-Type", "text/plain")
    assert ask(port, post("/", b"x" * 70_000, plain))[0] == 413
    assert ask(port, post("/reading/", b"x" * 100_000, plain))[1].endswith(
        b"data: 1\n\nevent: end\nid: :end\n\n"
    )


def test_a_body_that_ends_early_is_refused(live: Live, serve: Serve) -> None:
    port = serve([path("", csrf_exempt(live.events(body)))])
    client = Client(port)
    client.send(post("/", b"x", ("Content-Type", "text/plain"))[:-1])
    client.half_close()
    assert client.read_until(b"\r\n").split()[1] in (b"200", b"400")
    client.close()


def test_a_post_without_a_token_is_refused_by_django(live: Live, serve: Serve) -> None:
    port = serve([path("", live.events(body))])
    assert ask(port, post("/", b"x", ("Content-Type", "text/plain")))[0] == 403
    token = "a" * 32
    headers = (("Cookie", f"csrftoken={token}"), ("X-CSRFToken", token))
    _, answer = ask(port, post("/", b"hello", ("Content-Type", "text/plain"), *headers))
    assert b"data: hello\n\n" in answer


def test_the_response_is_finished_when_the_server_has_closed_it(live: Live, serve: Serve) -> None:
    finished: list[object] = []

    def note(**_: object) -> None:
        finished.append(None)

    request_finished.connect(note)
    try:
        client = WebSocketClient(serve([path("", live.websocket(greet, room="a"))]), "/")
        wait_until(lambda: len(finished) == 1, "the response is finished")
        client.close()
    finally:
        request_finished.disconnect(note)


def test_a_status_that_is_changed_after_the_view_refuses_the_request(
    live: Live, serve: Serve, log: ServerLog
) -> None:
    def refusing(request: HttpRequest) -> HttpResponseBase:
        websocket = live.websocket(greet, room="a")
        view = websocket if "Upgrade" in request.headers else live.events(count, to=3)
        response = view(request)
        response.status_code = 403  # as a middleware does
        return response

    urls = [path("", refusing)]
    port = serve(urls)
    for request in (upgrade("/"), get("/")):
        status, answer = ask(port, request)
        assert status == 403
        assert not answer.partition(b"\r\n\r\n")[2]
        log.expect("the response was closed without being sent", WARNING)
    with site(urls):  # without a socket
        response = DjangoClient().get("/")
        assert (response.status_code, b"".join(response)) == (403, b"")


def test_the_chunks_of_a_refused_request_are_no_request(live: Live) -> None:
    hidden = get("/hidden/")
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
    view = live.websocket(greet, room="a")
    with site([path("", view)]), running.cheroot_server(WSGIHandler()) as port:
        client = Client(port)
        client.send(upgrade("/", ("Transfer-Encoding", "chunked")) + body)
        head = client.read_until(b"\r\n\r\n")
        assert head.split()[1] == b"400"
        client.receive(int(head.lower().partition(b"content-length: ")[2].split()[0]))
        client.send(get("/", ("Connection", "close")))
        assert client.read_to_end().startswith(b"HTTP/1.1 426 ")  # an upgrade is required
        client.close()


def test_the_metrics_are_a_view(live: Live, serve: Serve) -> None:
    port = serve([path("", live.websocket(greet, room="a")), path("metrics/", live.metrics_view)])
    client = WebSocketClient(port, "/")
    status, answer = ask(port, get("/metrics/"))
    assert status == 200
    assert b'wsframe_connections{kind="websocket"} 1\n' in answer
    assert b"Content-Type: application/openmetrics-text" in answer
    client.close()


def test_the_test_client_of_django_gets_event_streams(live: Live, database: object) -> None:
    def noting(request: HttpRequest) -> HttpResponseBase:
        messages.info(request, "hello")
        return live.events(count, to=3)(request)

    with site([path("", noting)]):
        response = DjangoClient(headers={"Accept-Encoding": "gzip"}).get("/")
        assert response.status_code == 200
        assert response.headers["X-Frame-Options"] == "DENY"
        content = response.getvalue()
        assert isinstance(content, bytes)
        assert content.endswith(b"data: 2\n\nevent: end\nid: :end\n\n")
        parts = list(DjangoClient().get("/"))  # as a WSGI server reads the response
        assert b"".join(parts).endswith(b"data: 2\n\nevent: end\nid: :end\n\n")


def test_the_test_client_of_django_gets_a_501_for_a_websocket(
    live: Live, log: ServerLog, database: object
) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    with site([path("", live.websocket(greet, room="a"))], ALLOWED_HOSTS=["testserver"]):
        response = DjangoClient(SERVER_PROTOCOL="HTTP/1.1").get("/", headers=headers)
    assert response.status_code == 501
    assert b"WebSockets are not possible: " in response.content


def test_a_request_over_asgi_is_an_error_that_names_the_remedy(live: Live) -> None:
    with pytest.raises(ImproperlyConfigured, match="--worker-class gthread"):
        live.events(count, to=1)(AsyncRequestFactory().get("/"))


def test_a_handler_that_cannot_be_called_is_an_error(live: Live) -> None:
    request = RequestFactory().get("/", headers={"Host": "localhost"})
    with pytest.raises(TypeError, match=r"count.* must take the request, the connection, room: "):
        live.events(count, room="hall")(request)
    with pytest.raises(TypeError, match="the connection: missing a required argument: 'to'"):
        live.events(count)(request)

    async def coroutine() -> None: ...

    for method in (live.websocket, live.events):
        with pytest.raises(TypeError, match="must be a plain or a generator function"):
            method(coroutine)
    with pytest.raises(TypeError, match="a topic has no arguments: to"):
        live.events(live.topic("news"), to=1)


def test_options_are_those_of_the_settings_of_the_project(make_live: MakeLive) -> None:
    with site([], WSFRAME={"origins": "https://friend.example"}):
        with pytest.raises(ImproperlyConfigured, match=r"settings\.WSFRAME: origins must be"):
            make_live()
        make_live(origins=["https://friend.example"])
    with (
        site([], WSFRAME={"max_conections": 7}),
        pytest.raises(ImproperlyConfigured, match="max_conections"),
    ):
        make_live()
