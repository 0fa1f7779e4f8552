"""websockets, its threaded server, with its broadcast."""

from websockets.sync.server import ServerConnection, broadcast, serve

from bench.given import port

receivers: set[ServerConnection] = set()


def handle(websocket: ServerConnection) -> None:
    """Broadcast every message of a publisher; echo every message of a receiver."""
    assert websocket.request
    if websocket.request.path == "/publish":
        for message in websocket:
            broadcast(receivers, message)
        return
    receivers.add(websocket)
    for message in websocket:
        websocket.send(message)
    receivers.remove(websocket)


with serve(
    handle, "127.0.0.1", port(), compression=None, ping_interval=None, backlog=1024
) as server:
    server.serve_forever()
