"""WebSocket: the interface of a WebSocket for handlers and other threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

from wsframe import CloseCode, ConnectionClosed, StateError, encode_frame
from wsframe.frames import BINARY, TEXT, check_close
from wsframe.messages import check_message, encode_json

from ..pure_rounds import LARGE_FRAME
from ..sockets.output import no_room
from ..topics.encodings import message_encoding

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ..http.request import Request
    from ..sockets.identities import Identity
    from ..topics.subscription import Subscription
    from ..topics.topic import Topic
    from .websocket_session import WebSocketSession


class WebSocket:
    """One WebSocket connection; its handler and other threads use this object.

    A plain function has its own thread, and iterates over the WebSocket or calls :meth:`receive`.
    In a generator function ``yield`` returns the next message, and raises
    :class:`ConnectionClosed` at the end of the connection.

    >>> app = App()
    >>> @app.websocket("/greet")
    ... def greet(ws):
    ...     ws.send("Who are you?")
    ...     name = yield
    ...     ws.send(f"Hello, {name}!")
    >>> with app.start() as server, connect(f"ws://localhost:{server.port}/greet") as ws:
    ...     ws.receive()
    ...     ws.send("Ann")
    ...     ws.receive()
    'Who are you?'
    'Hello, Ann!'

    Attributes:
        request: the request that opened the connection.
        subprotocol: the negotiated subprotocol, or None.
    """

    __slots__ = ("_compresses", "_encoding", "_peer", "_session", "request", "subprotocol")

    def __init__(self, session: WebSocketSession, request: Request) -> None:
        self.request: Request = request
        self.subprotocol: str | None = session.codec.subprotocol
        self._session = session
        self._peer = session.peer
        deflate = session.codec.deflate
        self._compresses = deflate is not None
        # A lock, because with context takeover frames must be sent in the order of their
        # compression.
        takeover = deflate is not None and not deflate.server_no_context_takeover
        self._encoding = threading.Lock() if takeover else None

    @property
    def close_code(self) -> int | None:
        """Any thread: the close code of a connection that has ended or is closing; or None."""
        return None if self._session.over is None else self._session.over.code

    @property
    def close_reason(self) -> str | None:
        """Any thread: the close reason of a connection that has ended or is closing; or None."""
        return None if self._session.over is None else self._session.over.reason

    def send(
        self,
        message: str | Buffer,
        compress: bool | None = None,
        timeout: float | None = None,
    ) -> None:
        """Any thread: send a message, text for ``str``, binary for bytes-like objects.

        Several threads may send at the same time. The call queues the message and returns. Without
        a ``timeout``, any thread except the loop's waits after that until at most 256 KiB are
        unsent (back-pressure).

        With a ``timeout`` the call waits *before* it queues the message. Use a timeout in a thread
        that serves several clients in turn, so that the slowest client does not delay the others.
        The message is queued completely or not at all. Publish to a topic to send the same message
        to many clients: a topic never waits for a slow client.

        Args:
            message: the complete message.
            compress: as for :meth:`wsframe.Connection.encode`.
            timeout: seconds to wait while more than 256 KiB are unsent; 0 does not wait. None waits
                without a limit, except on the loop's thread. If a turn on that thread sends to
                another connection with more than 256 KiB unsent, that client is disconnected. A
                generator's messages remain unsent until its turn ends or loses the loop. So with 0
                a generator can queue at most 256 KiB in one turn, however fast the client is.

        Raises:
            ConnectionClosed: the connection has ended, or :meth:`close` was called.
            TimeoutError: more than 256 KiB were still unsent at the end of the ``timeout``. The
                message was *not* queued. The connection stays open, and the call may be repeated.
            TypeError: the message is neither a ``str`` nor a bytes-like object.
        """
        if self._session.over is not None:
            raise self._session.over_error()
        if timeout is not None:
            self._send_in_time(message, compress, timeout)
            return
        # Connection.encode and Peer.send are inlined, because their calls cost measurable time.
        peer = self._peer
        size = -1 if self._compresses else peer.queue_message(message)
        if size < 0:
            size = self._queue_frame(message, compress)
        if size:
            peer.schedule_flush(size)

    def send_json(
        self, value: object, compress: bool | None = None, timeout: float | None = None
    ) -> None:
        """Any thread: send a value as a text message in JSON, as :meth:`Topic.publish` encodes it.

        The other arguments and errors are those of :meth:`send`. A ``str`` is a value, too: it is
        sent as a JSON string.

        Raises:
            TypeError: JSON cannot encode the value.
            ValueError: the value contains a circular reference, NaN or infinity.
        """
        self.send(encode_json(value), compress, timeout)

    def _queue_frame(self, message: str | Buffer, compress: bool | None) -> int:
        """Any thread: queue an encoded message; return its size; 0 for a small one in a turn."""
        peer = self._peer
        frame = self._append(message, compress)
        return 0 if peer.in_turn and len(frame) <= LARGE_FRAME else len(frame)

    def _send_in_time(self, message: str | Buffer, compress: bool | None, timeout: float) -> None:
        """Any thread: queue a message as soon as at most 256 KiB are unsent."""
        peer = self._peer
        if not peer.wait_for_room(timeout):
            raise no_room(timeout)
        if self._session.over is not None:
            raise self._session.over_error()
        frame = self._append(message, compress)
        peer.schedule_flush(len(frame), wait=False)

    def _append(self, message: str | Buffer, compress: bool | None) -> bytes:
        """Any thread: queue the frame of a message; return the frame."""
        try:
            if self._compresses:
                return self._compress(message, compress)
            frame = encode_frame(TEXT if isinstance(message, str) else BINARY, message)
        except TypeError:
            check_message(message)
            raise
        self._peer.out.append(frame)
        return frame

    def _compress(self, message: str | Buffer, compress: bool | None) -> bytes:
        """Any thread: queue the frame of a message on a connection with compression."""
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
        """Any thread: send the events of a topic to the client until the subscription is closed.

        The events are sent in the order of the topic, between the messages of the handler. The
        policy of the topic applies to a client that is too slow; see
        :meth:`wsframe.server.App.topic`.

        Args:
            topic: the topic, or its name, which has at most 1,024 bytes.
            after: the position to start from. None starts with the next event, "" with the oldest
                event in the log. An id starts with the event after it; if some of these events
                are no longer in the log, the client receives a gap notice first.
            otherwise: the position if the id in ``after`` is unknown to the topic, because a client
                can make up any id: None or "", as for ``after``. The client receives a gap notice.
            envelope: True to send JSON objects with ``topic``, ``id``, ``event`` and ``data``
                instead of the data alone. From the ``id``, the client can resume later. Binary data
                is encoded in base64, and ``binary`` is true. An object without data is a notice. An
                "open" notice contains the id from which the client can resume before the first
                event. A "gap" notice contains that id, and the ``oldest`` id in the log.
            member: the name of the subscriber for :meth:`Topic.members`.

        Raises:
            ConnectionClosed: the connection has ended, or :meth:`close` was called.
            StateError: the connection has the maximum number of subscriptions
                (``max_subscriptions``).
            ValueError: the name is too long, or contains a lone surrogate, which cannot be encoded
                as UTF-8.
        """
        if self._session.over is not None:
            raise self._session.over_error()
        encoding = message_encoding(self._session.codec.deflate, envelope)
        return self._session.subscribe(topic, encoding, after, otherwise, member)

    def identify(self, identity: Identity | None) -> None:
        """Any thread: set the identity by which :meth:`App.close_identity` finds this WebSocket.

        Call it if ``authorize`` cannot return the identity, for example because a message contains
        the credentials. A closing before the call has no effect on the connection. So set the
        identity first, and check after that whether the session is still valid.

        Args:
            identity: the text, the number or the UUID that names the user: at most 512 bytes in
                UTF-8. A number is the same as its text. None removes the identity.

        Raises:
            TypeError: the identity has another type.
            ValueError: the identity is empty or too long, or contains a lone surrogate.
        """
        self._session.identify(identity)

    def ping(self, payload: Buffer = b"") -> None:
        """Any thread: send a ping, which the client answers automatically.

        Raises:
            ConnectionClosed: the connection has ended, or :meth:`close` was called.
            ValueError: the payload has more than 125 bytes.
        """
        self._session.ping(payload)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Any thread: close after the messages sent before; a second call does nothing.

        Raises:
            ValueError: the code must not be sent, or the reason exceeds 123 bytes of UTF-8.
        """
        # An error must be raised in the caller, and not later on the loop.
        check_close(code, reason)
        self._session.request_close(code, reason)

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The handler's thread: wait for the next message.

        Args:
            timeout: the limit in seconds; None waits without a limit.

        Raises:
            ConnectionClosed: the connection has ended, and every message was received.
            TimeoutError: no message arrived in time.
            RuntimeError: the handler is a generator, which must receive messages with ``yield``.
        """
        return self._session.next_message(timeout)

    def __iter__(self) -> Iterator[str | bytes]:
        """The handler's thread: iterate over the messages until the end of the connection."""
        receive = self._session.next_message
        while True:
            try:
                message = receive(None)
            except ConnectionClosed:
                return
            yield message
