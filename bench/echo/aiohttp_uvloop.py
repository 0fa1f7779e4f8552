"""aiohttp on uvloop."""

import sys

import uvloop
from aiohttp import WSMsgType, web


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Send every message back."""
    websocket = web.WebSocketResponse(compress=False)
    await websocket.prepare(request)
    async for message in websocket:
        if message.type is WSMsgType.TEXT:
            await websocket.send_str(message.data)
        else:
            await websocket.send_bytes(message.data)
    return websocket


app = web.Application()
app.router.add_get("/", echo)
web.run_app(
    app,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    backlog=1024,
    access_log=None,
    loop=uvloop.new_event_loop(),
)
