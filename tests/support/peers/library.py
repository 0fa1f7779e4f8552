"""What every library must offer: a connection in blocking calls, a client and a server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeAlias

from wsframe import Close, Pong

TIMEOUT = 10.0
#: Of compression: names of RFC 7692, and their values.
Terms: TypeAlias = "dict[str, Any]"


class Ended(Exception):  # noqa: N818 it is no error
    """The other end closed: its code and its reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Peer(ABC):
    """One connection of a library's. Every wait is bounded, and pings are answered in each.

    Attributes:
        subprotocol: what was agreed on.
        terms: what it knows of the compression that was agreed on; None for no compression.
    """

    subprotocol: str | None
    terms: Terms | None

    @abstractmethod
    def send(self, message: str | bytes) -> None:
        """Send a message in one frame."""

    def send_in_fragments(self, pieces: Sequence[str] | Sequence[bytes]) -> None:
        """Send a message in these fragments, a ping between each two."""
        raise NotImplementedError

    @abstractmethod
    def receive(self) -> str | bytes:
        """Wait for a message.

        Raises:
            Ended: there is none, and the connection is closed.
        """

    @abstractmethod
    def ping(self, payload: bytes) -> None:
        """Send a ping, and wait for the pong that answers it."""

    @abstractmethod
    def close(self, code: int, reason: str) -> int:
        """Send a close frame, and wait for the one that answers it; return its code."""

    def end(self) -> tuple[int, str]:
        """Wait until the other end closes: its code and its reason."""
        try:
            message = self.receive()
        except Ended as ended:
            return ended.code, ended.reason
        raise AssertionError(f"a message instead of the end: {message!r:.100}")


class EventPeer(Peer):
    """One that takes what comes one by one."""

    def __init__(self) -> None:
        self._messages: deque[str | bytes] = deque()
        self._pongs: deque[bytes] = deque()

    @abstractmethod
    def next_event(self) -> str | bytes | Pong | Close:
        """Wait for the next message or whatever else comes, but for pings, which are answered."""

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
    """The one visit to a server."""

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
        """Wait until that is over, and raise what it has raised."""
        self._over.result(TIMEOUT)


class Library(ABC):
    """A library.

    Attributes:
        fragments: whether it can send messages in fragments.
        limits: whether it can limit the size of messages.
        client_asks: the terms of compression that its clients can ask for.
        server_asks: those that its servers can.
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
        """Open a connection, and close it in the end.

        Args:
            subprotocols: to offer.
            deflate: compression to offer, and what to ask for; None for none.
            limit: of the size of messages, if it has one.
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
        """Serve one client by this script, to whose end it is waited in the end; give the URL."""
