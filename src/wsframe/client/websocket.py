"""WebSocket: a client's connection, for any number of threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from math import inf
from ssl import SSLContext
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

from ..connection import Connection
from ..deflate import PerMessageDeflate
from ..errors import ConnectionClosed, HandshakeError, StateError
from ..fields import Headers, decode_response
from ..frames import CloseCode, Role
from ..handshake import Acceptance, UpgradeRequest
from .dial import Location, dial, set_deadline
from .exchange import Exchange
from .transport import Transport

if TYPE_CHECKING:
    import socket

    from typing_extensions import Buffer, Self

SCHEMES = {"ws": False, "wss": True}
END_OF_HEAD = b"\r\n\r\n"
MAX_HEAD_SIZE = 16384


class WebSocket:
    """A client's end of a WebSocket; :func:`connect` makes them.

    There is no thread behind it: while some thread is in one of its methods, what the server sends
    is read, pings are answered and all that waits is sent, for every thread. So a program that
    only waits for long had better wait in :meth:`receive`. Messages that come while nobody waits
    for them are kept, up to a limit; then nothing is read until some are taken.

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
        send_timeout: float,
    ) -> None:
        self.headers = acceptance.headers
        self.subprotocol = acceptance.subprotocol
        self.deflate = acceptance.deflate
        self._close_timeout = close_timeout
        self._send_timeout = send_timeout
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
            TimeoutError: the server has taken nothing for ``send_timeout`` seconds. What it got may
                end within a frame, so the connection was closed.
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
            began = monotonic()
            deadline = inf if timeout is None else began + timeout
            self._check_open()
            try:
                exchange.push_ping(payload)
                exchange.wait(
                    lambda: exchange.answered(payload) or exchange.end is not None,
                    lambda: deadline,
                )
                if exchange.answered(payload):
                    return monotonic() - began
            finally:
                exchange.forget(payload)
            if exchange.end is not None:
                raise self._ended()
            raise TimeoutError(f"no answer to a ping in {timeout} seconds")

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Any thread: wait for the next message.

        What came before the server's close frame is received first, and may still be answered.
        Then the frame is answered, and the connection closed, which takes ``close_timeout`` at
        most, whatever the timeout here.

        Args:
            timeout: how long, in seconds; None for as long as it takes.

        Raises:
            ConnectionClosed: the connection is over, and every message was received.
            TimeoutError: no message came in time.
        """
        exchange = self._exchange
        with self._state:
            if not exchange.inbox:
                deadline = inf if timeout is None else monotonic() + timeout
                exchange.wait(lambda: exchange.inbox or exchange.end is not None, lambda: deadline)
            if exchange.inbox:
                return exchange.take()
            if exchange.end is None:
                raise TimeoutError(f"no message in {timeout} seconds")
            if exchange.left or not self._codec.close_sent:  # else another thread is closing
                exchange.say_goodbye(self._close_timeout)
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

        That takes ``close_timeout`` at most, and then the socket is closed. Threads that wait in
        other methods are woken. What comes meanwhile is thrown away. Closing twice does nothing.

        Raises:
            ValueError: the code may not be sent, or the reason has more than 123 bytes of UTF-8.
        """
        Connection(Role.CLIENT).close(code, reason)  # raises even where nothing is sent any more
        with self._state:
            self._exchange.end_with(code, reason, reason)
            self._state.notify_all()
            self._exchange.say_goodbye(self._close_timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(CloseCode.NORMAL_CLOSURE if kind is None else CloseCode.INTERNAL_ERROR)

    def _send(self, encode: Callable[[], bytes]) -> None:
        exchange = self._exchange
        with self._encoding:
            self._check_open()
            try:
                frame = encode()
            except StateError:
                raise self._ended() from None
            with self._state:
                self._check_open()
                ticket = exchange.push(frame)
        if exchange.sent < ticket:
            with self._state:
                self._wait_until_sent(ticket)

    def _wait_until_sent(self, ticket: int) -> None:
        exchange = self._exchange
        in_time = exchange.wait(
            lambda: exchange.sent >= ticket or exchange.left,
            lambda: exchange.moved + self._send_timeout,
        )
        if not in_time:
            late = f"the server has taken nothing for {self._send_timeout} seconds"
            exchange.give_up(late)
            raise TimeoutError(f"{late}; the connection is closed")
        if exchange.sent < ticket:
            raise self._ended()

    def _check_open(self) -> None:
        if self._exchange.left or self._codec.close_sent:
            raise self._ended()

    def _ended(self) -> ConnectionClosed:
        """What to raise at a thread that goes on after the end."""
        end = self._exchange.end
        assert end is not None
        return ConnectionClosed(end.code, end.reason)


def connect(
    url: str,
    *,
    subprotocols: Sequence[str] = (),
    headers: Headers = (),
    origin: str | None = None,
    deflate: PerMessageDeflate | bool = True,
    ssl: SSLContext | None = None,
    open_timeout: float = 10.0,
    close_timeout: float = 5.0,
    send_timeout: float = 30.0,
    max_message_size: int = 1 << 20,
    max_queue: int | None = None,
) -> WebSocket:
    """Any thread: open a WebSocket. Redirects are not followed, and proxies not used.

    Args:
        url: "ws://..." or "wss://...", with no fragment; a user and a password in it become an
            ``Authorization`` header.
        subprotocols: those that the client speaks, in order of preference.
        headers: what the request carries besides, as (name, value) pairs, or a mapping.
        origin: what the ``Origin`` header says; None for no such header.
        deflate: the compression to offer; True for ``PerMessageDeflate()``, False for none.
        ssl: the context for "wss"; None for the system's certificates.
        open_timeout: how long all this may take, in seconds, but for the system's name lookup.
        close_timeout: how long the closing handshake may take, in seconds.
        send_timeout: how long the server may take nothing of what waits for it, in seconds.
        max_message_size: the most bytes that a message of the server's may have.
        max_queue: how many bytes of messages may wait to be received before nothing more is read;
            None for those of 16 of the largest. What one read brings may come on top.

    Raises:
        HandshakeError: the server has refused, with the status that it answered; or its answer
            breaks a rule, with the status 502.
        TimeoutError: it took too long.
        OSError: the host is unknown or cannot be reached, or its certificate is not in order
            (``ssl.SSLError``).
        ValueError: the URL is malformed, or another argument is not in order.
        TypeError: subprotocols are one ``str`` instead of a sequence of them.
    """
    location = Location.of(url, SCHEMES)
    request = UpgradeRequest(
        location.authority,
        location.target,
        origin=origin,
        subprotocols=subprotocols,
        deflate=PerMessageDeflate() if deflate is True else deflate or None,
        headers=location.with_authorization(headers),
    )
    if max_queue is None:
        max_queue = 16 * max_message_size
    Connection(Role.CLIENT, max_message_size=max_message_size)  # raises what is wrong with it
    deadline = monotonic() + open_timeout
    sock = dial(location, deadline, ssl)
    try:
        acceptance, rest = _shake_hands(sock, request, deadline)
        codec = Connection(
            Role.CLIENT,
            max_message_size=max_message_size,
            deflate=acceptance.deflate,
            subprotocol=acceptance.subprotocol,
        )
        exchange = Exchange(Transport(sock), codec, max_queue)
    except BaseException:
        sock.close()
        raise
    exchange.feed(rest)
    return WebSocket(exchange, acceptance, close_timeout=close_timeout, send_timeout=send_timeout)


def _shake_hands(
    sock: socket.socket, request: UpgradeRequest, deadline: float
) -> tuple[Acceptance, bytes]:
    """Send the request; return what the answer means, and the bytes behind it."""
    set_deadline(sock, deadline)
    sock.sendall(request.encode())
    received = b""
    while True:
        head, found, rest = received.partition(END_OF_HEAD)
        if len(head) > MAX_HEAD_SIZE:
            raise HandshakeError(502, f"the answer's head is over the limit of {MAX_HEAD_SIZE}")
        if found:
            status, headers = decode_response(head + found)
            if status >= 200 or status == HTTPStatus.SWITCHING_PROTOCOLS:
                return request.confirm(status, headers), rest
            received = rest  # RFC 9110 section 15.2: an interim answer, that nobody asked for
            continue
        set_deadline(sock, deadline)
        data = sock.recv(MAX_HEAD_SIZE)
        if not data:
            raise HandshakeError(502, "the server left before it answered")
        received += data
