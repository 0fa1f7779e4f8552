"""A client of an event stream, which the codec decodes."""

from __future__ import annotations

import ssl
from collections import deque
from email.message import Message

from wsframe import EventStreamDecoder, ServerSentEvent

from .client import Client, Response
from .requests import get

END_OF_BLOCK = b"\n\n"


class StreamClient(Client):
    """A client with an open event stream.

    Example::

        client = server.stream("/news", ("Last-Event-ID", "7"))
        assert client.expect(2) == ["eight", "nine"]

    Args:
        port: the port of the server.
        target: the path and the query.
        *headers: further headers of the request.
        receive_buffer: as for :class:`Client`.
        tls: as for :class:`Client`.
        method: the method of the request.
        body: its body, whose length must be among the headers.

    Attributes:
        head: the response, without a body.
        decoder: the decoder of the stream.

    Raises:
        HandshakeError: the server has refused the request; ``body`` has the whole body.
        OSError: the server does not accept the connection.
    """

    def __init__(
        self,
        port: int,
        target: str = "/",
        *headers: tuple[str, str],
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
        method: str = "GET",
        body: bytes = b"",
    ) -> None:
        super().__init__(port, receive_buffer=receive_buffer, tls=tls)
        self.decoder: EventStreamDecoder = EventStreamDecoder()
        self._events: deque[ServerSentEvent] = deque()
        accept = ("Accept", "text/event-stream")
        request = get(target, accept, *headers, method=method) + body
        self.head: Response = self._open(200, self.send, request)
        self._in_chunks = "chunked" in self.headers.get("Transfer-Encoding", "")

    @property
    def headers(self) -> Message:
        """The headers of the response."""
        return self.head.headers

    @property
    def last_event_id(self) -> str:
        """The value of ``Last-Event-ID`` when it reconnects."""
        return self.decoder.last_event_id

    def read_opening(self) -> bytes:
        """Return the beginning of a stream with a topic: the reconnection time and its position.

        Events that are published afterwards reach the client.

        Raises:
            AssertionError: the stream has no position, or it begins with an event.
        """
        received, blocks = b"", 1
        while received.count(END_OF_BLOCK) < blocks and (data := self.more()):
            received += data
            blocks = 2 if received.startswith(b"retry: ") else 1
        self._events += self.decoder.receive(received)
        *opening, _ = received.split(END_OF_BLOCK, blocks)
        if not opening or not opening[-1].startswith(b"id: ") or b"\ndata" in opening[-1]:
            raise AssertionError(f"expected an id field without data, received: {received!r}")
        return END_OF_BLOCK.join([*opening, b""])

    def more(self) -> bytes:
        """Return more data of the stream, or its next chunk; b"" at the end.

        Raises:
            EOFError: the connection has ended within a chunk.
        """
        return self.read_chunk() if self._in_chunks else self.receive()

    def next_event(self) -> ServerSentEvent:
        """Return the next event.

        Raises:
            EOFError: the stream has ended.
            TimeoutError: nothing has arrived within ``TIMEOUT``.
        """
        with self._within():
            while not self._events:
                data = self.more()
                if not data:
                    raise EOFError("the stream has ended")
                self._events += self.decoder.receive(data)
        return self._events.popleft()

    def expect(self, count: int, timeout: float | None = None) -> list[str]:
        """Return the data of the next events.

        Args:
            count: the number of events.
            timeout: the seconds for all of them; None for ``TIMEOUT`` for each.

        Raises:
            EOFError: the stream has ended earlier.
            TimeoutError: the events have not arrived in time; the error's message contains the
                events so far.
        """
        return self._collect(lambda: self.next_event().data, count, timeout)

    def expect_end(self) -> None:
        """Wait until the server ends the stream; close the socket.

        Raises:
            AssertionError: more events arrive before the end.
        """
        with self._within():
            while data := self.more():
                self._events += self.decoder.receive(data)
        self._check_end(list(self._events))
