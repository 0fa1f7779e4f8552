"""websockets on one of its loops."""

from websockets.asyncio.server import ServerConnection, serve

from bench.event_loop import context, run
from bench.given import port


async def echo(websocket: ServerConnection) -> None:
    """Send every message back."""
    async for message in websocket:
        await websocket.send(message)


async def main() -> None:
    """Serve until the process is terminated."""
    async with serve(
        echo,
        "127.0.0.1",
        port(),
        compression=None,
        ping_interval=None,
        backlog=1024,
        ssl=context(),
    ) as server:
        await server.serve_forever()


run(main())
