"""The last data of a connection and the end of the server's side arrive together."""

from __future__ import annotations

import select

import pytest

from tests.support.clients import Clients, get, masked, upgrade
from tests.support.handlers import generator_echo, websocket_app
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe.frames import Opcode

pytestmark = pytest.mark.skipif(
    not hasattr(select, "POLLRDHUP"), reason="this system does not report the end before a read"
)


@pytest.mark.parametrize("close_frame", [True, False], ids=["close frame", "answer"])
def test_the_end_arrives_with_the_last_data(
    serve: Serve, clients: Clients, close_frame: bool
) -> None:
    """Otherwise the client would wake up for the data, and again for the end."""
    server = serve(websocket_app(generator_echo))
    client = clients.connect(server)
    if close_frame:
        client.send(upgrade("/echo"))
        client.read_until(b"\r\n\r\n")
    poller = select.poll()
    poller.register(client.sock, select.POLLIN | select.POLLRDHUP)
    if close_frame:
        client.send(masked(Opcode.CLOSE, b"\x03\xe8"))
    else:
        client.send(get("/nothing"))
    ((_, events),) = poller.poll(TIMEOUT * 1000)
    assert events & select.POLLIN
    assert events & select.POLLRDHUP
    assert client.read_to_end()
