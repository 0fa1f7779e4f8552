"""A WebSocket, as its handler and other threads use it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

from wsframe import CloseCode, ConnectionClosed, StateError, encode_frame
from wsframe.frames import BINARY, TEXT, check_close

from ..sockets.peer import LARGE_FRAME, no_room
from ..topics.encodings import message_encoding

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ..http.request import Request
    from ..topics.subscription import Subscription
    from ..topics.topic import Topic
    from .websocket_session import WebSocketSession


class WebSocket:
    """One WebSocket connection, as its handler sees it.

    A plain function iterates over it, or calls :meth:`receive`, in a thread of its own. In a
    generator function the next message is what ``yield`` gives, and the end of the connection is
    :class:`ConnectionClosed` raised there.

    Attributes:
        request: the request that opened the connection.
        subprotocol: the one that was agreed on, or None.
    """

    __slots__ = ("_compresses", "_encoding", "_peer", "_session", "request", "subprotocol")

    def __init__(self, session: WebSocketSession, request: Request) -> None:
        self.request = request
        self.subprotocol = session.codec.subprotocol
        self._session = session
        self._peer = session.peer
        deflate = session.codec.deflate
        self._compresses = deflate is not None
        # Where compression keeps a context, frames go out in the order in which they were made.
        takeover = deflate is not None and not deflate.server_no_context_takeover
        self._encoding = threading.Lock() if takeover else None

    @property
    def close_code(self) -> int | None:
        """Any thread: how the connection ended or was asked to end; None while it is open."""
        return None if self._session.over is None else self._session.over.code

    def send(
        self,
        message: str | Buffer,
        *,
        compress: bool | None = None,
        timeout: float | None = None,
    ) -> None:
        """Any thread: send a message, text for ``str``, binary for bytes-like objects.

        Frames of several threads never mix. The call returns when the message is queued. Without a
        ``timeout`` a thread other than the loop's then waits while more than 256 KiB are unsent, at
        the pace of the client.

        A thread that serves several clients one after the other sends with a ``timeout``, so that
        it does not wait for the slowest of them. It then waits *before* it queues the message, and
        not afterwards. A message is queued as a whole or not at all. What is the same for many
        clients is better published to a topic, which waits for none of them.

        Args:
            message: the whole of it.
            compress: as for :meth:`wsframe.Connection.encode`.
            timeout: for how many seconds to wait while more than 256 KiB are unsent; 0 does not
                wait. None waits without a limit, but not on the loop's thread: there, in a turn of
                another connection, a client with so much unsent is cut off. What a generator sends
                is unsent until its turn ends or loses the loop. So with 0 it can queue no more than
                256 KiB in one turn, however fast the client is.

        Raises:
            ConnectionClosed: the connection is over, or :meth:`close` was called.
            TimeoutError: so much was still unsent at the end of the ``timeout``. The message has
                *not* been queued; the connection stays open, and the call may be repeated.
        """
        if self._session.over is not None:
            raise self._session.over_error()
        if timeout is not None:
            self._send_in_time(message, compress, timeout)
            return
        # Connection.encode and Peer.send in line: this runs for every message, and the calls were
        # measurable.
        peer = self._peer
        if self._compresses:
            frame = self._compress(message, compress)
        else:
            frame = encode_frame(TEXT if isinstance(message, str) else BINARY, message)
            peer.out.append(frame)
        if not peer.in_turn or len(frame) > LARGE_FRAME:
            peer.kick(len(frame))

    def _send_in_time(self, message: str | Buffer, compress: bool | None, timeout: float) -> None:
        """Any thread: queue a message as soon as there is room for it."""
        peer = self._peer
        if not peer.wait_for_room(timeout):
            raise no_room(timeout)
        if self._session.over is not None:
            raise self._session.over_error()
        if self._compresses:
            frame = self._compress(message, compress)
        else:
            frame = encode_frame(TEXT if isinstance(message, str) else BINARY, message)
            peer.out.append(frame)
        peer.kick(len(frame), wait=False)

    def _compress(self, message: str | Buffer, compress: bool | None) -> bytes:
        """Any thread: queue the frame of a message where compression was agreed on."""
        try:
            with self._encoding or nullcontext():
                frame = self._session.codec.encode(message, compress=compress)
                self._peer.out.append(frame)
        except StateError:
            raise self._session.over_error() from None
        return frame

    def subscribe(
        self,
        topic: str | Topic,
        *,
        after: str | None = None,
        otherwise: str | None = None,
        envelope: bool = False,
        member: str | None = None,
    ) -> Subscription:
        """Any thread: have what is published to a topic sent, until the subscription is closed.

        It is sent beside what the handler sends, in the topic's order. A client that is too slow
        meets the topic's policy; :meth:`wsframe.server.App.topic` says which there are.

        Args:
            topic: its name, or itself; a name has at most 1,024 bytes.
            after: None begins now; an id begins with what came after that event, or says that some
                of it is gone; "" begins with all that is remembered.
            otherwise: where to begin if the topic does not know that id: None for now, "" for all
                that is remembered. There is a gap then, too. Anybody can make up an id.
            envelope: send not just the data, but a JSON object with ``topic``, ``id``, ``event``
                and ``data``, so that the client knows after what to subscribe when it comes back.
                Binary data is in base64, and ``binary`` is true. An object without data is a
                notice: of the "open" subscription, with the id to go on from while nothing has
                come; or of a "gap", with that id, and the ``oldest`` id that is left.
            member: who subscribes, for :meth:`Topic.members`.

        Raises:
            ConnectionClosed: the connection is over, or :meth:`close` was called.
            StateError: it has as many subscriptions as it may (``max_subscriptions``).
            ValueError: the name is too long, or UTF-8 has no form for it.
        """
        if self._session.over is not None:
            raise self._session.over_error()
        encoding = message_encoding(self._session.codec.deflate, envelope)
        return self._session.subscribe(topic, encoding, after, otherwise, member)

    def ping(self, payload: Buffer = b"") -> None:
        """Any thread: send a ping, which the client answers by itself.

        Raises:
            ConnectionClosed: the connection is over, or :meth:`close` was called.
            ValueError: the payload has more than 125 bytes.
        """
        self._session.ping(payload)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Any thread: close, after what was sent before; closing twice does nothing.

        Raises:
            ValueError: the code may not be sent, or the reason has more than 123 bytes of UTF-8.
        """
        check_close(code, reason)  # here, where the caller can catch it, and not on the loop
        self._session.request_close(code, reason)

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The handler's own thread: wait for the next message.

        Args:
            timeout: how long, in seconds; None for as long as it takes.

        Raises:
            ConnectionClosed: the connection is over, and every message was received.
            TimeoutError: no message came in time.
            RuntimeError: the handler is a generator, in which ``yield`` is what waits.
        """
        return self._session.next_message(timeout)

    def __iter__(self) -> Iterator[str | bytes]:
        """The handler's own thread: iterate over the messages until the connection is over."""
        while True:
            try:
                message = self.receive()
            except ConnectionClosed:
                return
            yield message
