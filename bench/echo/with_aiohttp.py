"""aiohttp on one of its loops."""

from aiohttp import WSMsgType, web

from bench.event_loop import context, new_loop
from bench.given import compute, port


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


async def computing(request: web.Request) -> web.WebSocketResponse:
    """Compute for a while in every message, and send it back."""
    websocket = web.WebSocketResponse(compress=False)
    await websocket.prepare(request)
    async for message in websocket:
        compute()
        await websocket.send_str(message.data)
    return websocket


app = web.Application()
app.router.add_get("/", echo)
app.router.add_get("/compute", computing)
web.run_app(
    app,
    host="127.0.0.1",
    port=port(),
    backlog=1024,
    access_log=None,
    ssl_context=context(),
    loop=new_loop(),
)
