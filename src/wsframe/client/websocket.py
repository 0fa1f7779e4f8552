"""WebSocket: a client's connection, for any number of threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from math import inf
from typing import TYPE_CHECKING

from ..closing import Closing
from ..errors import ConnectionClosed, StateError
from ..frames import CloseCode, check_close
from ..handshake import Acceptance
from .exchange import Exchange

if TYPE_CHECKING:
    from typing_extensions import Buffer


class WebSocket(Closing):
    """A client's end of a WebSocket; :func:`connect` makes them.

    There is no thread behind it: while some thread is in one of its methods, what the server sends
    is read, pings are answered and all that waits is sent, for every thread. So a program that
    only waits for long should wait in :meth:`receive`. A server that is silent there is pinged
    after ``ping_interval``. The connection ends with 1006 if the server does not answer within
    ``ping_timeout``, or acknowledges nothing of what it was sent for ``send_timeout``. Time in
    which no thread waits does not count. Messages that come while nobody waits
    for them are kept, up to a limit; then nothing is read until some are taken.

    A signal handler may interrupt any method by an exception, as Ctrl-C does, but must not call one
    itself, for it may have interrupted that very method; an interrupted :meth:`send` may have to
    close the connection.

    As a context manager it closes when it is left: with 1000, or with 1011 by an exception.

    Attributes:
        headers: what the server's answer to the handshake carried, as (name, value) pairs.
        subprotocol: the one that was agreed on, or None.
        deflate: the compression that was agreed on, or None.
    """

    def __init__(
        self,
        exchange: Exchange,
        acceptance: Acceptance,
        *,
        close_timeout: float,
    ) -> None:
        self.headers = acceptance.headers
        self.subprotocol = acceptance.subprotocol
        self.deflate = acceptance.deflate
        self._close_timeout = close_timeout
        self._exchange = exchange
        self._codec = exchange.codec
        self._state = exchange.state
        # Held while a message is encoded and queued, for compression keeps a context and messages
        # must leave in the order in which they were compressed. Taken before the state, if both.
        self._encoding = threading.Lock()

    @property
    def close_code(self) -> int | None:
        """Any thread: the code of the close frame that came first, the server's or ours.

        1006 where the connection was lost without one; None while it is open.
        """
        end = self._exchange.end
        return None if end is None else end.code

    @property
    def close_reason(self) -> str | None:
        """Any thread: the reason that came with the code, or what happened; None while open."""
        end = self._exchange.end
        return None if end is None else end.reason

    def send(self, message: str | Buffer, *, compress: bool | None = None) -> None:
        """Any thread: send a message, text for ``str``, binary for bytes-like objects.

        Frames of several threads never mix. The call returns when the system has taken the whole
        message; while it waits for that, it reads what comes.

        Args:
            message: the whole of it.
            compress: where compression was agreed on, whether to compress this message; None for
                "if it has the agreement's ``min_size``".

        Raises:
            ConnectionClosed: the connection is over, or :meth:`close` was called.
            TimeoutError: the server has acknowledged nothing for ``send_timeout`` seconds. What it
                got may end within a frame, so the connection was closed.
            ValueError: text that UTF-8 has no form for, such as half a surrogate pair.
        """
        self._send(lambda: self._codec.encode(message, compress=compress))

    def ping(self, payload: Buffer = b"") -> None:
        """Any thread: send a ping, which keeps an idle connection open.

        Raises:
            ConnectionClosed: as :meth:`send`.
            TimeoutError: as :meth:`send`.
            ValueError: the payload has more than 125 bytes.
        """
        self._send(lambda: self._codec.ping(payload))

    def round_trip(self, timeout: float | None = 10.0) -> float:
        """Any thread: send a ping and wait for the answer, to know that the server is there.

        Args:
            timeout: how long, in seconds; None for as long as it takes.

        Returns:
            How long the answer took, in seconds.

        Raises:
            ConnectionClosed: the connection is over, or ends meanwhile.
            TimeoutError: there was no answer in time; the connection is as it was. Without room for
                more messages that nobody takes, the answer behind them cannot be read.
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
            raise TimeoutError(f"no answer to a ping in {timeout} seconds")

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Any thread: wait for the next message.

        What came before the server's close frame is received first, and may still be answered.
        Then the frame is answered, and the connection closed, as by :meth:`close`, whatever the
        timeout here.

        Args:
            timeout: how long, in seconds; None for as long as it takes.

        Raises:
            ConnectionClosed: the connection is over, and every message was received.
            TimeoutError: no message came in time.
        """
        exchange = self._exchange
        with self._state:
            if not exchange.inbox:
                deadline = inf if timeout is None else exchange.clock() + timeout
                exchange.wait(lambda: exchange.inbox or exchange.end is not None, lambda: deadline)
            if exchange.inbox:
                return exchange.take()
            if exchange.end is None:
                raise TimeoutError(f"no message in {timeout} seconds")
            if not self._codec.close_sent:  # else another thread is closing
                exchange.finish_closing(self._close_timeout)
            raise self._ended()

    def __iter__(self) -> Iterator[str | bytes]:
        """Any thread: iterate over the messages until the connection is over, however it ends."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosed:
                return
            yield message

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Any thread: close, after what was sent before, and wait until the server has, too.

        The server is waited for until it has acknowledged nothing for ``close_timeout`` seconds.
        Then the socket is closed. Threads that wait in
        other methods are woken. What comes meanwhile is thrown away. Closing twice does nothing.

        Raises:
            ValueError: the code may not be sent, or the reason has more than 123 bytes of UTF-8.
        """
        check_close(code, reason)  # also if the connection is closed already
        with self._state:
            self._exchange.end_with(code, reason, reason)
            self._state.notify_all()
            self._exchange.finish_closing(self._close_timeout)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(CloseCode.NORMAL_CLOSURE if kind is None else CloseCode.INTERNAL_ERROR)

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
                raise  # nothing was encoded
            except BaseException:
                # Interrupted: the compressor may know of a message that the server will not have.
                with self._state:
                    exchange.abort("a thread that sent was interrupted")
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
        """What to raise at a thread that goes on after the end."""
        end = self._exchange.end
        assert end is not None
        return ConnectionClosed(end.code, end.reason)
