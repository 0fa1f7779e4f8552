"""A view of the internals of a server, for tests of what clients cannot see.

It is the only module that depends on the private attributes of these classes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from wsframe.server.pure_rounds import size_of

from .waiting import wait_until

if TYPE_CHECKING:
    from wsframe.server import App, Server, WebSocket
    from wsframe.server.handoff.loop import Loop
    from wsframe.server.sessions.websocket_session import WebSocketSession
    from wsframe.server.sockets.clients import Clients
    from wsframe.server.sockets.peer import Peer
    from wsframe.server.topics.redis.streams import RedisStreams
    from wsframe.server.topics.registry import Topics
    from wsframe.uvicorn import WebSocketProtocol


def loops_of(server: Server) -> tuple[Loop, ...]:
    """Return the loops of a server."""
    return server._loops


def clients_of(server: Server) -> tuple[Clients, ...]:
    """Return the connections of each loop of a server."""
    return server._clients


def peers_of(server: Server) -> set[Peer]:
    """Return the open connections of a server."""
    return {peer for clients in clients_of(server) for peer in tuple(clients.peers)}


def indexed(server: Server) -> dict[str, int]:
    """Return the number of connections that the loops of a server have of each identity."""
    return {
        identity: len(peers)
        for clients in clients_of(server)
        for identity, peers in clients.identities._peers.items()
    }


def wait_for_disconnects(server: Server, remaining: int = 0) -> None:
    """Wait until the server has closed all connections, or all except so many."""
    wait_until(
        lambda: len(peers_of(server)) == remaining, f"the server has {remaining} connections"
    )


def socket_of(peer: Peer) -> socket.socket:
    """Return the socket of a connection."""
    return cast("socket.socket", peer.sock)


def queued_bytes(peer: Peer) -> int:
    """Return how many bytes the server holds for a client, beyond the kernel's buffer."""
    return peer.position - peer.bytes_out + sum(map(size_of, peer.out))


def session_of(peer: Peer) -> Any:
    """Return the session of a connection."""
    return peer.session


def websocket_session(ws: WebSocket) -> WebSocketSession:
    """Return the session behind a WebSocket."""
    return ws._session


def topics_of(app: App) -> Topics:
    """Return the topics of an app."""
    return app._topics


def channel_listener(streams: RedisStreams, client: Any, pubsub: Any) -> Any:
    """Return a listener to the Redis channels, which the test drives instead of a thread."""
    from wsframe.server.topics.redis.channels import _Listener

    return _Listener(streams.connection, client, pubsub, "holder")


def listening_sockets(server: Server) -> list[socket.socket]:
    """Return the sockets on which a server listens."""
    return [listener._sock for listener in server._listeners]


def exchange_of(ws: Any) -> Any:
    """Return what the client's WebSocket shares between its threads."""
    return ws._exchange


def transport_of(ws: Any) -> Any:
    """Return the transport of the client's WebSocket."""
    return exchange_of(ws)._transport


def use_clock(ws: Any, clock: Callable[[], float]) -> None:
    """Let the client's WebSocket use this clock for its deadlines and pings."""
    exchange = exchange_of(ws)
    exchange.clock = exchange._liveness._clock = clock


def waiting_messages(connection: WebSocketProtocol) -> list[Any]:
    """Return the messages that wait for the application of uvicorn."""
    return list(connection._messages)


def late_pong(connection: WebSocketProtocol) -> bytes | None:
    """Return the payload of the newest ping that is not answered, because the client is slow."""
    return connection._late_pong


def pong_timer(connection: WebSocketProtocol) -> object:
    """Return the timer of the next pong."""
    return connection._pong_timer


def is_ending(connection: WebSocketProtocol) -> bool:
    """Return True if the socket is closed as soon as its data is sent."""
    return connection._abort_timer is not None


def reads_ahead(connection: WebSocketProtocol) -> bool:
    """Return True if the application has been busy for so long that messages are read ahead."""
    return connection._behind and connection._read_ahead_timer is None
