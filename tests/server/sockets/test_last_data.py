"""The last data of a connection and the end of the server's side arrive together."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.certificates import Certificates
from tests.support.clients import Clients, get, masked, upgrade
from tests.support.handlers import BOTH_KINDS, generator_echo, websocket_app
from tests.support.inspection import wait_for_disconnects
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


@BOTH_KINDS
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_a_client_that_closes_right_after_its_close_frame_has_left(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    echo: Callable[..., Any],
    secure: bool,
) -> None:
    """As browsers do when a page is reloaded; its system resets the connection at the reply."""
    context = certificates.server if secure else None
    server = serve(websocket_app(echo), ssl_context=context, close_timeout=2 * TIMEOUT)
    for _ in range(3):
        client = clients.websocket(server, "/echo", tls=certificates.client if secure else None)
        client.send(client.codec.close(1001))
        client.close()
    wait_for_disconnects(server)
