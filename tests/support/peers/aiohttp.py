"""aiohttp: an event loop in a thread, and calls to it from other threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeAlias

from aiohttp import ClientSession, ClientWebSocketResponse, ClientWSTimeout, WSMsgType, web

from tests.support.waiting import TIMEOUT
from wsframe import Close, Pong

from .library import EventPeer, Library, Peer, Script, Terms, Visit

Call: TypeAlias = "Callable[[Coroutine[Any, Any, Any]], Any]"


@contextmanager
def event_loop() -> Iterator[Call]:
    """Run an event loop; yield a function that runs a coroutine there and returns its result."""
    ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        over = asyncio.Event()
        ready.set_result((asyncio.get_running_loop(), over))
        await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    loop, over = ready.result(TIMEOUT)
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(TIMEOUT)
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(TIMEOUT)


class AiohttpPeer(EventPeer):
    """A connection, and the calls to its loop."""

    def __init__(self, ws: ClientWebSocketResponse | web.WebSocketResponse, call: Call) -> None:
        super().__init__()
        self._ws = ws
        self._call = call
        if isinstance(ws, ClientWebSocketResponse):
            local, self.subprotocol, takeover = "client", ws.protocol, not ws.client_notakeover
        else:
            assert ws._writer is not None
            local, self.subprotocol, takeover = "server", ws.ws_protocol, not ws._writer.notakeover
        # aiohttp does not store the other end's parameters, and inflates with the largest window.
        self.terms = None
        if ws.compress:
            self.terms = {
                f"{local}_no_context_takeover": not takeover,
                f"{local}_max_window_bits": ws.compress,
            }

    def send(self, message: str | bytes) -> None:
        """Send a message in one frame."""
        if isinstance(message, str):
            self._call(self._ws.send_str(message))
        else:
            self._call(self._ws.send_bytes(message))

    def ping(self, payload: bytes) -> None:
        """Send a ping, and wait for its pong."""
        self._call(self._ws.ping(payload))
        self.wait_for_pong(payload)

    def close(self, code: int, reason: str) -> int:
        """Send a close frame, and wait for the answer; return its code."""
        self._call(self._ws.close(code=code, message=reason.encode()))
        assert self._ws.close_code is not None
        return self._ws.close_code

    def next_event(self) -> str | bytes | Pong | Close:
        """Wait for the next event."""
        while True:
            message = self._call(self._ws.receive(TIMEOUT))
            match message.type:
                case WSMsgType.PING:
                    self._call(self._ws.pong(message.data))
                case WSMsgType.PONG:
                    return Pong(bytes(message.data))
                case WSMsgType.TEXT:
                    return str(message.data)
                case WSMsgType.BINARY:
                    return bytes(message.data)
                case WSMsgType.CLOSE:  # aiohttp returns 0 for a frame without a code
                    return Close(message.data or 1005, message.extra)
                case _:
                    return Close(self._ws.close_code or 1006)


class Aiohttp(Library):
    """aiohttp.

    It always answers a close frame with 1000, and rejects messages of exactly its limit.
    """

    name = "aiohttp"
    fragments = False
    client_asks = frozenset({"server_max_window_bits"})
    server_asks = frozenset()

    @contextmanager
    def connect(
        self,
        url: str,
        *,
        subprotocols: Sequence[str] = (),
        deflate: Terms | None = None,
        limit: int = 1 << 20,
    ) -> Iterator[Peer]:
        """Open a connection, and close it at the end."""
        bits = 0 if deflate is None else deflate.get("server_max_window_bits", 15)

        async def open_session() -> ClientSession:
            return ClientSession()

        async def open_websocket() -> ClientWebSocketResponse:
            ws: ClientWebSocketResponse = await session.ws_connect(
                url,
                protocols=subprotocols,
                compress=bits,
                max_msg_size=limit + 1,
                autoping=False,
                timeout=ClientWSTimeout(ws_close=TIMEOUT),
            )
            return ws

        with event_loop() as call:
            session = call(open_session())
            try:
                ws = call(open_websocket())
                yield AiohttpPeer(ws, call)
                call(ws.close())
            finally:
                call(session.close())

    @contextmanager
    def serve(
        self,
        script: Script,
        *,
        subprotocols: Sequence[str] = (),
        deflate: Terms | None = None,
        limit: int = 1 << 20,
    ) -> Iterator[str]:
        """Serve one client with this script, in a new thread."""
        visit = Visit()

        async def handle(request: web.Request) -> web.WebSocketResponse:
            ws = web.WebSocketResponse(
                protocols=subprotocols,
                compress=deflate is not None,
                max_msg_size=limit + 1,
                autoping=False,
                timeout=TIMEOUT,
            )
            await ws.prepare(request)
            await asyncio.to_thread(visit.run, script, AiohttpPeer(ws, call))
            return ws

        async def start() -> web.AppRunner:
            app = web.Application()
            app.router.add_get("/", handle)
            runner = web.AppRunner(app, shutdown_timeout=TIMEOUT)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return runner

        with event_loop() as call:
            runner = call(start())
            try:
                yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
                visit.wait()
            finally:
                call(runner.cleanup())
