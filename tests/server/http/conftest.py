"""The fixtures that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.http.refused import LIMIT, PAGE
from tests.support.clients import Clients, get
from tests.support.handlers import generator_echo, plain_echo
from tests.support.serving import Serve
from wsframe.server import App, Server


@pytest.fixture
def server(serve: Serve, clients: Clients) -> Iterator[Server]:
    """Return a server; at the end of the test it must still serve another client."""
    app = App()
    app.page("/", PAGE)
    app.websocket("/echo", max_message_size=LIMIT)(generator_echo)
    app.websocket("/thread", max_message_size=LIMIT)(plain_echo)
    app.websocket("/site", origins=["https://example.com", "http://other.example:8080"])(plain_echo)
    app.websocket("/open", origins="*")(generator_echo)
    app.websocket("/every", origins=["*"])(generator_echo)
    app.websocket("/app", origins=["capacitor://localhost"])(generator_echo)
    app.sse("/time", source=app.topic("time"))
    running = serve(app, hosts="*")
    yield running
    client = clients.connect(running)
    client.send(get("/"))
    assert client.answer().body == PAGE
    last = clients.websocket(running, "/echo")
    last.send_messages("served")
    assert last.next_event() == "served"
    last.leave()
