"""The interface of all libraries: a connection with blocking calls, a client and a server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeAlias

from tests.support.waiting import TIMEOUT
from wsframe import Close, Pong

#: Parameters of compression (RFC 7692), and their values.
Terms: TypeAlias = "dict[str, Any]"


class Ended(Exception):  # noqa: N818 it is no error
    """The other end has closed, with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Peer(ABC):
    """One connection of a library. Every wait has a limit, and answers pings.

    Attributes:
        subprotocol: the negotiated subprotocol.
        terms: the negotiated compression, as far as the library reports it; None for none.
    """

    subprotocol: str | None
    terms: Terms | None

    @abstractmethod
    def send(self, message: str | bytes) -> None:
        """Send a message in one frame."""

    def send_in_fragments(self, pieces: Sequence[str] | Sequence[bytes]) -> None:
        """Send a message in these fragments, with pings between them."""
        raise NotImplementedError

    @abstractmethod
    def receive(self) -> str | bytes:
        """Wait for a message.

        Raises:
            Ended: the connection is closed.
        """

    @abstractmethod
    def ping(self, payload: bytes) -> None:
        """Send a ping, and wait for its pong."""

    @abstractmethod
    def close(self, code: int, reason: str) -> int:
        """Send a close frame, and wait for the answer; return its code."""

    def end(self) -> tuple[int, str]:
        """Wait until the other end closes; return its code and its reason."""
        try:
            message = self.receive()
        except Ended as ended:
            return ended.code, ended.reason
        raise AssertionError(f"a message instead of the end: {message!r:.100}")


class EventPeer(Peer):
    """A connection of a library that returns events one by one."""

    def __init__(self) -> None:
        self._messages: deque[str | bytes] = deque()
        self._pongs: deque[bytes] = deque()

    @abstractmethod
    def next_event(self) -> str | bytes | Pong | Close:
        """Wait for the next event, and answer pings meanwhile."""

    def receive(self) -> str | bytes:
        """Wait for a message."""
        while not self._messages:
            self._take_event()
        return self._messages.popleft()

    def wait_for_pong(self, payload: bytes) -> None:
        """Wait for this pong, which must be the next one."""
        while not self._pongs:
            self._take_event()
        assert self._pongs.popleft() == payload

    def _take_event(self) -> None:
        match self.next_event():
            case Close(code, reason):
                raise Ended(code, reason)
            case Pong(payload):
                self._pongs.append(payload)
            case message:
                self._messages.append(message)


Script: TypeAlias = "Callable[[Peer], object]"


class Visit:
    """The only connection to a server."""

    def __init__(self) -> None:
        self._over: Future[None] = Future()

    def run(self, serve: Callable[..., object], *arguments: object) -> None:
        """The server's thread: serve the client."""
        try:
            serve(*arguments)
        except BaseException as error:
            self._over.set_exception(error)
        else:
            self._over.set_result(None)

    def wait(self) -> None:
        """Wait for the end of :meth:`run`, and raise its exception."""
        self._over.result(TIMEOUT)


class Library(ABC):
    """A WebSocket library.

    Attributes:
        fragments: True if it can send messages in fragments.
        limits: True if it can limit the size of messages.
        client_asks: the parameters of compression that its clients can request.
        server_asks: the parameters of compression that its servers can request.
    """

    name: ClassVar[str]
    fragments: ClassVar[bool] = True
    limits: ClassVar[bool] = True
    client_asks: ClassVar[frozenset[str]]
    server_asks: ClassVar[frozenset[str]]

    @abstractmethod
    def connect(
        self,
        url: str,
        *,
        subprotocols: Sequence[str] = (),
        deflate: Terms | None = None,
        limit: int = 1 << 20,
    ) -> AbstractContextManager[Peer]:
        """Open a connection, and close it at the end.

        Args:
            url: the URL of the server.
            subprotocols: the subprotocols to offer.
            deflate: the parameters to request; None for no compression.
            limit: the limit on the size of messages, if the library has one.
        """

    @abstractmethod
    def serve(
        self,
        script: Script,
        *,
        subprotocols: Sequence[str] = (),
        deflate: Terms | None = None,
        limit: int = 1 << 20,
    ) -> AbstractContextManager[str]:
        """Serve one client with this script, and wait for its end; yield the URL."""
