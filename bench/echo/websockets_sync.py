"""websockets, its threaded server."""

import sys

from websockets.sync.server import ServerConnection, serve


def echo(websocket: ServerConnection) -> None:
    """Send every message back."""
    for message in websocket:
        websocket.send(message)


with serve(
    echo, "127.0.0.1", int(sys.argv[1]), compression=None, ping_interval=None, backlog=1024
) as server:
    server.serve_forever()
