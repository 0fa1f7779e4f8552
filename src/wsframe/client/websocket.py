"""WebSocket: the client's end of a connection, for any number of threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from math import inf
from typing import TYPE_CHECKING

from ..closing import Closing
from ..deflate import PerMessageDeflate
from ..errors import ConnectionClosed, StateError
from ..frames import CloseCode, check_close
from ..handshake import Acceptance
from ..messages import check_message, encode_json
from ..shown import show
from .exchange import Exchange

if TYPE_CHECKING:
    from typing_extensions import Buffer


class WebSocket(Closing):
    """The client's end of a WebSocket; call :func:`connect` to open one.

    It has no background thread. While any thread is in one of its methods, that thread receives,
    answers pings and sends, for all threads. So a program that waits for a long time
    should wait in :meth:`receive`.

    The client sends a ping if it has received no data for ``ping_interval``. The connection ends
    with 1006 if no pong arrives within ``ping_timeout``. It also ends with 1006 if the server's
    TCP acknowledges no sent data for ``send_timeout``. These times exclude periods in which no
    thread waits in a method. Received messages are queued up to ``max_queue``; then reading pauses
    until some are taken.

    A signal handler may interrupt any method with an exception, as Ctrl-C does. It must not call a
    method itself, because it may have interrupted the same method. An interrupted :meth:`send` may
    close the connection.

    A ``with`` statement closes the connection at its end, with 1000, or 1011 after an exception.

    >>> with connect("ws://localhost:9292/echo") as ws:
    ...     ws.send("hello")
    ...     ws.receive(timeout=10)
    'hello'

    Attributes:
        headers: the headers of the server's response to the handshake, as (name, value) pairs.
        subprotocol: the negotiated subprotocol, or None.
        deflate: the negotiated compression, or None.
    """

    def __init__(
        self,
        exchange: Exchange,
        acceptance: Acceptance,
        *,
        close_timeout: float,
    ) -> None:
        self.headers: tuple[tuple[str, str], ...] = acceptance.headers
        self.subprotocol: str | None = acceptance.subprotocol
        self.deflate: PerMessageDeflate | None = acceptance.deflate
        self._close_timeout = close_timeout
        self._exchange = exchange
        self._codec = exchange.codec
        self._state = exchange.state
        # The lock is held while a message is encoded and queued, because with context takeover
        # messages must be sent in the order of their compression. It is acquired before ``state``.
        self._encoding = threading.Lock()

    @property
    def close_code(self) -> int | None:
        """Any thread: the code of the first close frame, either the server's or the client's.

        1006 if the connection was lost without a close frame; None while it is open.
        """
        end = self._exchange.end
        return None if end is None else end.code

    @property
    def close_reason(self) -> str | None:
        """Any thread: the close reason, or a description of the failure; None while open."""
        end = self._exchange.end
        return None if end is None else end.reason

    def send(self, message: str | Buffer, *, compress: bool | None = None) -> None:
        """Any thread: send a message, text for ``str``, binary for bytes-like objects.

        Messages of several threads are never interleaved. The call returns when the system has
        accepted the complete message; it receives data while it waits.

        Args:
            message: the complete message.
            compress: True to compress the message if compression was negotiated, False to send it
                uncompressed, None to compress it if it has at least ``deflate.min_size`` bytes.

        Raises:
            ConnectionClosed: the connection is closed, or :meth:`close` was called.
            TimeoutError: the server acknowledged no data for ``send_timeout`` seconds. A frame may
                have been sent in part, so the connection was closed.
            TypeError: the message is neither a ``str`` nor a bytes-like object.
            ValueError: the text contains a lone surrogate, which cannot be encoded as UTF-8.
        """
        try:
            self._send(lambda: self._codec.encode(message, compress=compress))
        except TypeError:
            check_message(message)
            raise

    def send_json(self, value: object, *, compress: bool | None = None) -> None:
        """Any thread: send a value as a text message in JSON.

        ``compress`` and the other errors are those of :meth:`send`. A ``str`` is a value, too: it
        is sent as a JSON string.

        Raises:
            TypeError: JSON cannot encode the value.
            ValueError: the value contains a circular reference, NaN or infinity.
        """
        self.send(encode_json(value), compress=compress)

    def ping(self, payload: Buffer = b"") -> None:
        """Any thread: send a ping, to keep an idle connection open.

        Raises:
            ConnectionClosed: as :meth:`send`.
            TimeoutError: as :meth:`send`.
            ValueError: the payload has more than 125 bytes.
        """
        self._send(lambda: self._codec.ping(payload))

    def round_trip(self, timeout: float | None = 10.0) -> float:
        """Any thread: send a ping and wait for the pong, to check that the server is alive.

        Args:
            timeout: the limit in seconds; None for no limit.

        Returns:
            The time until the pong, in seconds.

        Raises:
            ConnectionClosed: the connection is closed, or was closed during the call.
            TimeoutError: no pong was received in time; the connection stays open. A pong behind
                more messages than ``max_queue`` allows cannot be received.
        """
        payload = os.urandom(8)
        exchange = self._exchange
        with self._state:
            began = exchange.clock()
            deadline = inf if timeout is None else began + timeout
            self._check_open()
            try:
                exchange.push_ping(payload)
                exchange.wait(
                    lambda: exchange.answered(payload) or exchange.end is not None,
                    lambda: deadline,
                )
                if exchange.answered(payload):
                    return exchange.clock() - began
            finally:
                exchange.forget(payload)
            if exchange.end is not None:
                raise self._ended()
            raise TimeoutError(f"no pong within {timeout} seconds")

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Any thread: wait for the next message.

        Messages before the server's close frame are returned first, and may still be answered. Then
        this method answers the close frame and closes the connection as :meth:`close` does,
        regardless of the timeout.

        Args:
            timeout: the limit in seconds; None for no limit.

        Raises:
            ConnectionClosed: the connection is closed, and all messages were received.
            TimeoutError: no message was received in time.
        """
        exchange = self._exchange
        with self._state:
            if not exchange.inbox:
                deadline = inf if timeout is None else exchange.clock() + timeout
                exchange.wait(lambda: exchange.inbox or exchange.end is not None, lambda: deadline)
            if exchange.inbox:
                return exchange.take()
            if exchange.end is None:
                raise TimeoutError(f"no message within {timeout} seconds")
            if not self._codec.close_sent:  # otherwise another thread is closing
                exchange.finish_closing(self._close_timeout)
            raise self._ended()

    def __iter__(self) -> Iterator[str | bytes]:
        """Any thread: iterate over the messages until the connection is closed for any reason."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosed:
                return
            yield message

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Any thread: close after all sent messages, and wait until the server has closed, too.

        The wait ends when the server acknowledges no data for ``close_timeout`` seconds; then the
        socket is closed. Threads that wait in other methods are woken. Messages that are received
        meanwhile are discarded. Closing twice does nothing.

        Raises:
            ValueError: the code must not be sent, or the reason has more than 123 bytes of UTF-8.
        """
        # The arguments are checked even if the connection is already closed.
        check_close(code, reason)
        with self._state:
            self._exchange.end_with(code, reason, reason)
            self._state.notify_all()
            self._exchange.finish_closing(self._close_timeout)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(CloseCode.NORMAL_CLOSURE if kind is None else CloseCode.INTERNAL_ERROR)

    def __repr__(self) -> str:
        return show(
            self,
            close_code=self.close_code,
            subprotocol=self.subprotocol,
            deflate=self.deflate,
        )

    def _send(self, encode: Callable[[], bytes]) -> None:
        exchange = self._exchange
        with self._encoding:
            try:
                frame = encode()
                with self._state:
                    self._check_open()
                    ticket = exchange.push(frame)
            except StateError:
                raise self._ended() from None
            except (ConnectionClosed, ValueError, TypeError, BufferError):
                raise  # the error was raised before a frame was encoded
            except BaseException:
                # The interrupted call may have compressed a message that is never sent. The server
                # could not decompress later messages. So the connection is aborted.
                with self._state:
                    exchange.abort("a call of send() was interrupted")
                raise
        if exchange.sent < ticket:
            with self._state:
                self._wait_until_sent(ticket)

    def _wait_until_sent(self, ticket: int) -> None:
        exchange = self._exchange
        exchange.wait_until_sent(ticket)
        if exchange.sent >= ticket:
            return
        if exchange.stalled:
            exchange.abort(exchange.stalled)
            raise TimeoutError(f"{exchange.stalled}; the connection is closed")
        raise self._ended()

    def _check_open(self) -> None:
        if self._exchange.finished or self._codec.close_sent:
            raise self._ended()

    def _ended(self) -> ConnectionClosed:
        """Return the exception for a call after the end of the connection."""
        end = self._exchange.end
        assert end is not None
        return ConnectionClosed(end.code, end.reason)
