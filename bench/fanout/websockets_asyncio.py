"""websockets on asyncio, with its broadcast."""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve

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
        handle, "127.0.0.1", int(sys.argv[1]), compression=None, ping_interval=None, backlog=1024
    ) as server:
        await server.serve_forever()


asyncio.run(main())
