"""uvicorn on httptools, one of its loops and one of its WebSocket implementations.

The second argument names the loop, the third the implementation; its fastest one is the default.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from bench.given import files, port


async def echo(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Accept a WebSocket, and send every message back."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


cert, key = files()
uvicorn.run(
    echo,
    host="127.0.0.1",
    port=port(),
    loop="bench.event_loop:new_loop",
    http="httptools",
    ws=sys.argv[3] if len(sys.argv) > 3 else "websockets-sansio",
    ws_per_message_deflate=False,
    ws_ping_interval=None,
    lifespan="off",
    log_level="warning",
    ssl_certfile=cert,
    ssl_keyfile=key,
)
