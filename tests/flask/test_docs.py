"""The code of docs/flask.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from tests.support import flask_login
from tests.support.clients import (
    Client,
    StreamClient,
    WebSocketClient,
    get,
    parse_response,
    upgrade,
)
from tests.support.pages import DOCS, blocks
from tests.support.waiting import wait_until
from tests.wsgi import running
from wsframe import HandshakeError

BLOCKS = blocks("python", pages=(DOCS / "flask.md",))


Block = Callable[..., dict[str, Any]]


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> Iterator[Block]:
    """Run blocks, one after another, and return what they define."""
    apps: list[Flask] = []
    monkeypatch.setitem(sys.modules, "flask_login", flask_login)

    def run(*numbers: int) -> dict[str, Any]:
        names: dict[str, Any] = {"__name__": "page"}
        for number in numbers:
            BLOCKS[number].run(names)
        apps.extend(value for value in names.values() if isinstance(value, Flask))
        return names

    yield run
    for app in apps:
        app.extensions["wsframe"].stop(0)


def session_cookie(app: Flask, key: str, value: str) -> tuple[str, str]:
    """Return the header of a visitor whose session has this value."""
    visitor = app.test_client()
    with visitor.session_transaction() as session:
        session[key] = value
    cookie = visitor.get_cookie("session")
    assert cookie is not None
    return "Cookie", f"session={cookie.value}"


def test_a_view_returns_a_topic_or_a_websocket(block: Block) -> None:
    names = block(0)
    names["app"].add_url_rule("/login", "login", lambda: names["session"].update(name="ann") or "")
    with running.werkzeug_server(names["app"]) as port:
        stream = StreamClient(port, "/news")
        stream.read_opening()
        names["news"].publish("one")
        assert stream.expect(1) == ["one"]
        stream.close()
        page = Client(port)
        page.send(upgrade("/rooms/tea"))
        assert parse_response(page.read_to_end()).status == 401
        page.close()
        page = Client(port)
        page.send(get("/login", ("Connection", "close")))
        cookie = parse_response(page.read_to_end()).headers["Set-Cookie"].partition(";")[0]
        page.close()
        client = WebSocketClient(port, "/rooms/tea", ("Cookie", cookie))
        client.send_messages("hello")
        assert client.expect(1) == ["ann: hello"]
        client.leave()


def test_a_visitor_who_logs_out_loses_all_connections(block: Block) -> None:
    names = block(0, 1)
    app, news = names["app"], names["news"]
    cookies = {name: session_cookie(app, flask_login.USER, name) for name in ("ann", "bob")}
    with running.werkzeug_server(app) as port:
        with pytest.raises(HandshakeError) as caught:
            StreamClient(port, "/updates")
        assert caught.value.status == 401
        streams = [StreamClient(port, "/updates", cookies[name]) for name in ("ann", "ann", "bob")]
        for stream in streams:
            stream.read_opening()
        page = Client(port)
        page.send(get("/logout", cookies["ann"], ("Connection", "close"), method="POST"))
        response = parse_response(page.read_to_end())
        page.close()
        assert (response.status, response.headers["Location"]) == (302, "/")
        assert "session=;" in response.headers["Set-Cookie"]  # the session has ended, too
        for stream in streams[:2]:
            stream.expect_end()
        news.publish("for the others")
        assert streams[2].expect(1) == ["for the others"]
        streams[2].close()


def test_a_new_client_receives_the_history_and_the_members(block: Block) -> None:
    names = block(2)
    app, live = names["app"], names["live"]
    live.topic("news").publish("old")
    session = session_cookie(app, "name", "ann")
    with running.werkzeug_server(app) as port:
        stream = StreamClient(port, "/news")
        assert stream.expect(1) == ["old"]
        stream.close()
        page = Client(port)
        page.send(upgrade("/rooms/tea"))
        assert parse_response(page.read_to_end()).status == 401
        page.close()
        client = WebSocketClient(port, "/rooms/tea", session)
        client.send_messages("hello")
        # The first event of each topic is "open".
        *_, members, hello = (json.loads(str(text)) for text in client.expect(4))
        assert (members["event"], members["data"]) == ("members", "ann")
        assert (hello["event"], hello["data"]) == ("message", "ann: hello")
        client.leave()
        again = WebSocketClient(port, f"/rooms/tea?after={hello['id']}", session)
        again.send_messages("back")
        events = [json.loads(str(text)).get("data") for text in again.expect(4)]
        assert events == [None, None, "ann", "ann: back"]
        again.leave()


def test_the_context_ends_while_a_handler_waits(block: Block) -> None:
    names = block(3)
    with running.werkzeug_server(names["app"]) as port:
        stream = StreamClient(port, "/jobs/7")
        assert stream.expect(1) == ['{"name": "report", "path": "/jobs/7"}']
        wait_until(lambda: names["closed"], "the database is closed")
        names["jobs"]["7"].put(100)
        assert stream.expect(1) == ['{"name": "report", "percent": 100}']
        stream.expect_end()


def test_an_application_factory_configures_the_live(
    block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_WSFRAME_RETRY", "3")
    names = block(4)
    assert isinstance(names["create_app"](), Flask)
    app = names["create_app"]()
    assert app.config["WSFRAME_RETRY"] == 3
    assert app.extensions["wsframe"] is names["live"]


def test_a_test_opens_a_websocket(block: Block) -> None:
    app = block(6)["app"]
    call = block(5)["call"]
    for message in ("hello", "again"):
        assert call(app, "/echo", message, ("Sec-WebSocket-Protocol", "chat")) == message


def test_all_blocks_are_tested() -> None:
    assert len(BLOCKS) == 7
