"""Selected cases of the conformance suite over a socket, each sent in one segment."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cases import CASES, Case, fail_fast, many_fragments
from tests.support.clients import Clients, WebSocketClient
from tests.support.ends import BAD_DATA, SERVER
from tests.support.handlers import BOTH_KINDS, websocket_app
from tests.support.serving import Serve
from tests.support.tools import normals
from wsframe import Close, Connection, Event, PerMessageDeflate, Role


def connect(serve: Serve, clients: Clients, echo: Any, deflate: Any = None) -> WebSocketClient:
    server = serve(websocket_app(echo, deflate=PerMessageDeflate(min_size=0)))
    if deflate is None:
        return clients.websocket(server, "/echo")
    settings = PerMessageDeflate(**deflate)
    client = clients.websocket(server, "/echo", ("Sec-WebSocket-Extensions", settings.offer()))
    assert client.headers["Sec-WebSocket-Extensions"]
    client.codec = Connection(Role.CLIENT, deflate=settings)
    return client


def replies(client: WebSocketClient) -> tuple[Any, ...]:
    """All that comes up to the server's close frame, behind which the connection ends."""
    events: list[Event] = []
    while not isinstance(event := client.next_event(), Close):
        events.append(event)
    client.expect_end()
    return (*normals(events), ("Close", event.code))


@pytest.mark.unmeasured
@BOTH_KINDS
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_server_passes_the_case(serve: Serve, clients: Clients, echo: Any, case: Case) -> None:
    client = connect(serve, clients, echo, case.deflate)
    client.send(b"".join(case.wire(SERVER)))
    assert replies(client) == case.replies


@BOTH_KINDS
@pytest.mark.parametrize("number", fail_fast(SERVER))
def test_invalid_text_fails_at_its_first_bad_byte(
    serve: Serve, clients: Clients, echo: Any, number: str
) -> None:
    good, bad = fail_fast(SERVER)[number]
    client = connect(serve, clients, echo)
    client.send(good)
    client.send(bad)
    assert replies(client) == (("Close", BAD_DATA),)


@pytest.mark.unmeasured
@BOTH_KINDS
def test_a_message_of_4_mib_in_65536_fragments_is_received(
    serve: Serve, clients: Clients, echo: Any
) -> None:
    server = serve(websocket_app(echo, max_message_size=1 << 22))
    client = clients.websocket(server, "/echo")
    client.send(many_fragments(SERVER))
    assert client.next_event() == b"\xfe" * (1 << 22)
    assert client.leave() == Close(1000)
