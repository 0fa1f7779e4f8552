"""The two ends of a WebSocket in memory."""

from __future__ import annotations

from collections import deque

from wsframe import Connection, Event, Role


class End:
    """One end of a :class:`Pair`.

    Example::

        client = Pair().client
        client.ping(b"1")
        client.close(1001, "restart")

    Attributes:
        connection: the codec of this end.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection: Connection = connection
        self._received = bytearray()
        self._events: deque[Event] = deque()
        self._other = self

    def send(self, *messages: str | bytes) -> None:
        """Send messages to the other end."""
        for message in messages:
            self.write(self.connection.encode(message))

    def ping(self, payload: bytes = b"") -> None:
        """Send a ping to the other end."""
        self.write(self.connection.ping(payload))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Send a close frame to the other end."""
        self.write(self.connection.close(code, reason))

    def write(self, data: bytes) -> None:
        """Send unencoded bytes, such as an invalid frame."""
        self._other._received += data

    def receive(self, step: int = 0) -> list[Event]:
        """Decode all bytes that the other end has sent; return the events.

        Args:
            step: the maximum number of bytes that one call of the codec decodes; 0 for all.
        """
        data, self._received = bytes(self._received), bytearray()
        step = step or max(1, len(data))
        for begin in range(0, len(data), step):
            self._events += self.connection.receive(data[begin : begin + step])
        events = list(self._events)
        self._events.clear()
        return events

    def expect(self, count: int, step: int = 0) -> list[Event]:
        """Return the next events; later ones remain for the next call.

        Args:
            count: the number of events.
            step: as for :meth:`receive`.

        Raises:
            AssertionError: fewer events have arrived.
        """
        events = self.receive(step)
        self._events.extend(events[count:])
        if len(events) < count:
            raise AssertionError(f"received {len(events)} of {count} expected events: {events!r}")
        return events[:count]


class Pair:
    """The two ends of a WebSocket after its handshake, connected in memory.

    Example::

        pair = Pair()
        pair.client.send("hello")
        assert pair.server.expect(1, step=1) == ["hello"]

    Args:
        client: the codec of the client; by default a ``Connection`` without options.
        server: the codec of the server.

    Attributes:
        client: the client's end.
        server: the server's end.
    """

    def __init__(self, client: Connection | None = None, server: Connection | None = None) -> None:
        self.client: End = End(client or Connection(Role.CLIENT))
        self.server: End = End(server or Connection(Role.SERVER))
        self.client._other, self.server._other = self.server, self.client
