"""A WebSocket client, which uses the codec."""

from __future__ import annotations

import ssl
from collections import deque
from contextlib import suppress
from email.message import Message

from wsframe import Close, Connection, Event, Ping, Pong, Role, accept_key

from .client import Client
from .requests import KEY, upgrade

# The limit on received messages is large, because a server under test may send large ones.
MAX_MESSAGE_SIZE = 1 << 26


class WebSocketClient(Client):
    """A client with an open WebSocket.

    Example::

        client = server.websocket("/echo")
        client.send_messages("hello")
        assert client.expect(1) == ["hello"]
        assert client.leave() == Close(1000)

    Args:
        port: the port of the server.
        target: the path and the query.
        *headers: further headers of the request.
        first: bytes that are sent after the request in the same TCP segment.
        bytewise: send the request and these bytes one by one.
        answer_pings: answer each ping; False returns it as an event.
        receive_buffer: as for :class:`Client`.
        tls: as for :class:`Client`.

    Attributes:
        codec: the codec, which encodes frames for :meth:`send`.
        headers: the headers of the response.

    Raises:
        HandshakeError: the server has refused the request; ``body`` has the whole body.
        OSError: the server does not accept the connection.
    """

    def __init__(
        self,
        port: int,
        target: str,
        *headers: tuple[str, str],
        first: bytes = b"",
        bytewise: bool = False,
        answer_pings: bool = True,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(port, receive_buffer=receive_buffer, tls=tls)
        self.codec: Connection = Connection(Role.CLIENT, max_message_size=MAX_MESSAGE_SIZE)
        self._events: deque[Event] = deque()
        self._answers_pings = answer_pings
        send = self.send_bytewise if bytewise else self.send
        request = upgrade(target, *headers) + first
        self.headers: Message = self._open(101, send, request).headers
        if self.headers["Sec-WebSocket-Accept"] != accept_key(KEY):
            self.close()
            raise AssertionError(
                f"the response has a wrong Sec-WebSocket-Accept: {self.headers.items()}"
            )

    def send_messages(self, *messages: str | bytes) -> None:
        """Send the messages, all in one segment."""
        self.send(b"".join(map(self.codec.encode, messages)))

    def receive_available(self) -> None:
        """Receive the data that has arrived, without waiting, and answer a close frame."""
        super().receive_available()
        events = self.codec.receive(bytes(self._received))
        self._received.clear()
        self._events += events
        for event in events:
            if isinstance(event, Close):
                with suppress(OSError):  # the connection has ended already
                    self._answer_close(event)

    def next_event(self) -> Event:
        """Return the next event: a message, a pong, a close frame, a failure.

        Raises:
            EOFError: the connection has ended.
            TimeoutError: nothing has arrived within ``TIMEOUT``.
        """
        with self._within():
            while True:
                while not self._events:
                    data = self.receive()
                    if not data:
                        raise EOFError("the connection has ended")
                    self._events += self.codec.receive(data)
                event = self._events.popleft()
                if not (self._answers_pings and isinstance(event, Ping)):
                    return event
                self.send(self.codec.pong(event.payload))

    def expect(self, count: int, timeout: float | None = None) -> list[Event]:
        """Return the next events.

        Args:
            count: the number of events.
            timeout: the seconds for all of them; None for ``TIMEOUT`` for each.

        Raises:
            EOFError: the connection has ended earlier.
            TimeoutError: the events have not arrived in time; the error's message contains the
                events so far.
        """
        return self._collect(self.next_event, count, timeout)

    def leave(self, code: int = 1000, reason: str = "") -> Close:
        """Send a close frame; return the close frame with which the server answers.

        Raises:
            AssertionError: the next event is not a close frame, or data follows it.
        """
        self.send(self.codec.close(code, reason))
        close = self.next_event()
        if not isinstance(close, Close):
            raise AssertionError(f"expected a close frame, received: {close!r}")
        self.expect_end()
        return close

    def expect_close(self) -> Close:
        """Wait until the server closes; answer its close frame and return it.

        Raises:
            AssertionError: the next event, except pongs, is not a close frame.
        """
        while not isinstance(event := self.next_event(), Close):
            if not isinstance(event, Pong):
                raise AssertionError(f"expected a close frame, received: {event!r}")
        self._answer_close(event)
        self.expect_end()
        return event

    def _answer_close(self, close: Close) -> None:
        if not self.codec.close_sent:
            self.send(self.codec.close(close.code))

    def expect_end(self) -> None:
        """Wait until the server closes the connection; close the socket.

        Raises:
            AssertionError: more data arrives before the end.
        """
        with self._within():
            rest = self.read_to_end()
        self._check_end([*self._events, *filter(None, [rest])])
