"""websockets on asyncio."""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, serve


async def echo(websocket: ServerConnection) -> None:
    """Send every message back."""
    async for message in websocket:
        await websocket.send(message)


async def main() -> None:
    """Serve until the process is terminated."""
    async with serve(
        echo, "127.0.0.1", int(sys.argv[1]), compression=None, ping_interval=None, backlog=1024
    ) as server:
        await server.serve_forever()


asyncio.run(main())
