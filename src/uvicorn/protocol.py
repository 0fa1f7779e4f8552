"""WebSocketProtocol: a WebSocket connection of uvicorn, from its upgrade request to its end."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias, cast

from uvicorn.config import Config
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)
from uvicorn.server import ServerState

from wsframe import (
    Acceptance,
    CloseCode,
    Connection,
    HandshakeError,
    PerMessageDeflate,
    Role,
    accept,
)
from wsframe.frames import BINARY, TEXT
from wsframe.headers import pairs
from wsframe.kernels import encode_frame, take_messages

from .decoding import Decoding
from .handshake import END_OF_HEAD, Denial, UpgradeRequest, encode_answer, encode_refusal
from .receiving import Event
from .states import ANSWERING, CONNECTING, DENYING, OPEN, State

#: An ASGI message that the application sends.
Message: TypeAlias = "MutableMapping[str, Any]"
Application: TypeAlias = Callable[
    [dict[str, Any], Callable[[], Awaitable[Event]], Callable[[Message], Awaitable[None]]],
    Awaitable[object],
]

# The maximum number of bytes that are received before the application has answered the request.
MAX_EARLY = 64 * 1024
# Without context takeover, connections share compressors. A context for each connection would take
# about 300 KiB.
DEFLATE = PerMessageDeflate(server_no_context_takeover=True, client_no_context_takeover=True)


class WebSocketProtocol(Decoding):
    """The connection of one client, from its upgrade request to its end.

    uvicorn creates the protocol, and passes the head of the request and then all received data to
    it. All methods run in the thread of the event loop.

    >>> def main():
    ...     uvicorn.run("module:app", ws="wsframe.uvicorn:WebSocketProtocol")

    Args:
        config: the settings of uvicorn.
        server_state: the connections and tasks of the server.
        app_state: the state that the lifespan of the application has set.
        _loop: the event loop; by default the running one.

    Attributes:
        scope: the ASGI scope; empty until the request has been found valid.
    """

    __slots__ = (
        "_acceptance",
        "_app_state",
        "_closed_by_app",
        "_config",
        "_connections",
        "_denial",
        "_logger",
        "_server_state",
        "scope",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(_loop or asyncio.get_running_loop(), config)
        self.scope: dict[str, Any] = {}
        self._config = config
        self._server_state = server_state
        # Any, because the declared type has only uvicorn's classes.
        self._connections: set[Any] = server_state.connections
        self._app_state = app_state
        self._logger = logging.getLogger("uvicorn.error")
        self._acceptance: Acceptance | None = None
        self._denial: Denial | None = None
        self._closed_by_app = False

    # The transport ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport: asyncio.Transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        self._trace("WebSocket connection made")

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._connections.discard(self)
        self._trace("WebSocket connection lost")
        self._lost()
        self._forget_backlog()
        self._end_with(CloseCode.ABNORMAL_CLOSURE)

    def data_received(self, data: bytes) -> None:
        """Process received data; the first call passes the head of the request."""
        if self._direct:
            messages: list[str | bytes] = []
            left = take_messages(data, 0, messages, self._limit, True)
            if messages:
                self._put(messages)
            if left:
                self._receive(data[-left:])
        elif self._state is OPEN and not self._compressed:
            self._receive(data)
        elif self._state >= ANSWERING:
            self._discard(data)
        elif self.scope:
            self._undecoded += data
            if self._state is OPEN:
                self._decode()
            elif len(self._undecoded) > MAX_EARLY:
                self._pause()
        else:
            head, _, self._undecoded = data.partition(END_OF_HEAD)
            self._begin(UpgradeRequest.parse(head))

    def shutdown(self) -> None:
        """Close the connection, because the server stops."""
        if self._state is CONNECTING:
            self._refuse(503)
        elif self._state in (OPEN, ANSWERING):
            self._end_with(CloseCode.SERVICE_RESTART)
            self._send_close(CloseCode.SERVICE_RESTART, "")
            self._await_close(min(self.close_timeout, self.timing.shutdown_timeout))
        else:
            self._end_transport()

    # Receiving --------------------------------------------------------------------------------

    def _begin(self, request: UpgradeRequest) -> None:
        """Check the upgrade request, and start the application."""
        config = self._config
        try:
            self._acceptance = accept(
                request.fields,
                method=request.method,
                origins="*",  # the application must check the Origin
                deflate=DEFLATE if config.ws_per_message_deflate else None,
            )
            scope = request.scope(config.root_path, config.asgi_version)
        except HandshakeError as error:
            self._logger.warning("rejecting a WebSocket handshake: %s", error)
            self._refuse(error.status, error.reason, error.headers)
            return
        self.scope = {
            **scope,
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "state": self._app_state.copy(),
        }
        self._messages.append({"type": "websocket.connect"})
        # uvicorn has the setting reset_contextvars since 0.45.
        own_context = getattr(config, "reset_contextvars", False)
        context = contextvars.Context() if own_context else None
        task = self.loop.create_task(self._run(), context=context)
        tasks = self._server_state.tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    # Sending ----------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Process an ASGI message from the application: send a message, or answer the request.

        Replies to messages that arrived in one read are sent in one write.

        Raises:
            ClientDisconnected: the connection has ended.
            RuntimeError: the message is not permitted in the connection's state.
            ValueError: a header, a close code or a close reason is invalid.
        """
        if self._write_paused:
            await self._writable.wait()
        state = self._state
        if message["type"] != "websocket.send" or not (state is OPEN or state is ANSWERING):
            self._send_other(message)
            return
        text = message.get("text")
        if self._compressed:
            assert self._codec is not None
            frame = self._codec.encode(message["bytes"] if text is None else text)
        elif text is None:
            frame = encode_frame(BINARY, message["bytes"])
        else:
            frame = encode_frame(TEXT, text)
        if self._messages or self._replies:
            self._reply(frame, last=not self._messages)
        else:
            self.transport.write(frame)

    def _send_other(self, message: Message) -> None:
        """Process any message except ``websocket.send`` on an open WebSocket."""
        kind = message["type"]
        match self._state:
            case State.CONNECTING if kind == "websocket.accept":
                self._accept(message)
            case State.CONNECTING if kind == "websocket.close":
                self._log("403")
                self._refuse(403)
            case State.CONNECTING if kind == "websocket.http.response.start":
                self._denial = Denial(message, self._server_state.default_headers)
                self._log(str(self._denial.status))
                self._state = DENYING
            case State.DENYING if kind == "websocket.http.response.body":
                self._deny(message.get("body", b""), last=not message.get("more_body", False))
            case State.OPEN | State.ANSWERING if kind == "websocket.close":
                self._close(message.get("code", 1000), message.get("reason") or "")
            case State.CLOSING if not self._closed_by_app:
                raise ClientDisconnected
            case State.LOST:
                raise ClientDisconnected
            case state:
                raise RuntimeError(f"unexpected ASGI message {kind!r} in the state {state.name}")

    def _accept(self, message: Message) -> None:
        """Answer with 101."""
        assert self._acceptance is not None
        headers = [*pairs(self._server_state.default_headers), *self._acceptance.headers]
        if subprotocol := message.get("subprotocol"):
            headers.append(("Sec-WebSocket-Protocol", subprotocol))
        head = encode_answer(101, [*headers, *pairs(message.get("headers", ()))])
        self._log("[accepted]")
        deflate = self._acceptance.deflate
        self._codec = Connection(Role.SERVER, max_message_size=self._limit, deflate=deflate)
        self._compressed = deflate is not None
        self._state = OPEN
        self.transport.write(head)
        self._start_keepalive()
        self._decode()

    def _deny(self, body: bytes, *, last: bool) -> None:
        """Send a part of an HTTP response instead of opening a WebSocket."""
        assert self._denial is not None
        self.transport.write(self._denial.encode(body, last=last))
        if last:
            self._closed_by_app = True
            self._answered()

    def _close(self, code: int, reason: str) -> None:
        """Close the WebSocket, as the application has requested."""
        self._send_close(code, reason)
        self._closed_by_app = True
        self._put_end({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self._last_from_client is None:
            self._await_close(self.close_timeout)
        else:
            self._end_transport()

    # The end ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Run the application."""
        app = cast(Application, self._config.loaded_app)
        try:
            result = await app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            self._logger.exception("exception in the ASGI application")
        else:
            if result is not None:
                self._logger.error(
                    "the ASGI application must return None, but has returned %r", result
                )
            elif self._state is CONNECTING:
                self._logger.error(
                    "sending 500, because the ASGI application has not answered the WebSocket "
                    "request; it must send websocket.accept or websocket.close"
                )
        finally:
            self._app_ended()

    def _app_ended(self) -> None:
        """Close the connection if the application has returned without closing it."""
        match self._state:
            case State.CONNECTING:
                self._refuse(500)
            case State.DENYING:
                self._deny(b"", last=True)
            case State.OPEN:
                self._flush()
                self._end_transport()
            case State.ANSWERING:
                self._reply_to_close()

    def _no_pong(self) -> None:
        """Close the connection, because the client has not answered a ping in time."""
        self._send_close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
        self._end_with(CloseCode.ABNORMAL_CLOSURE)
        self._end_transport()

    def _refuse(
        self, status: int, reason: str = "", headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Refuse the request."""
        default_headers = self._server_state.default_headers
        self.transport.write(encode_refusal(status, default_headers, reason, headers))
        self._answered()

    def _answered(self) -> None:
        """End the connection after an answer other than 101."""
        self._undecoded = b""
        self._end_with(CloseCode.ABNORMAL_CLOSURE)
        self._end_transport()

    def _end_with(self, code: CloseCode) -> None:
        """Add the disconnect event for the application; later calls do nothing."""
        self._put_end({"type": "websocket.disconnect", "code": int(code)})

    # Logging ----------------------------------------------------------------------------------

    def _log(self, outcome: str) -> None:
        """Log the answer to the request, in the form of uvicorn's own classes."""
        scope: Any = self.scope
        where = get_client_addr(scope), get_path_with_query_string(scope)
        self._logger.info('%s - "WebSocket %s" %s', *where, outcome)

    def _trace(self, what: str) -> None:
        if self._logger.level <= TRACE_LOG_LEVEL:
            client = get_remote_addr(self.transport)  # None for a unix socket
            prefix = f"{client[0]}:{client[1]} - " if client else ""
            self._logger.log(TRACE_LOG_LEVEL, "%s%s", prefix, what)
