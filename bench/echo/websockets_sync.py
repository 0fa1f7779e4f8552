"""websockets, its threaded server."""

from websockets.sync.server import ServerConnection, serve

from bench.event_loop import context
from bench.given import port


def echo(websocket: ServerConnection) -> None:
    """Send every message back."""
    for message in websocket:
        websocket.send(message)


with serve(
    echo,
    "127.0.0.1",
    port(),
    compression=None,
    ping_interval=None,
    backlog=1024,
    ssl=context(),
) as server:
    server.serve_forever()
