"""websockets on one of its loops, with its broadcast."""

from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.event_loop import run
from bench.given import port

receivers: set[ServerConnection] = set()


async def handle(websocket: ServerConnection) -> None:
    """Broadcast every message of a publisher; echo every message of a receiver."""
    assert websocket.request
    if websocket.request.path == "/publish":
        async for message in websocket:
            broadcast(receivers, message)
        return
    receivers.add(websocket)
    async for message in websocket:
        await websocket.send(message)
    receivers.remove(websocket)


async def main() -> None:
    """Serve until the process is terminated."""
    async with serve(
        handle, "127.0.0.1", port(), compression=None, ping_interval=None, backlog=1024
    ) as server:
        await server.serve_forever()


run(main())
