"""EventSource: an event stream that comes back by itself (WHATWG HTML section 9.2)."""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from ssl import SSLContext
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urldefrag, urljoin

from ..errors import HandshakeError, WSFrameError
from ..fields import FORBIDDEN_IN_A_VALUE, Headers, check_field
from ..sse import EventStreamDecoder, ServerSentEvent
from .dial import Line, Location
from .http import Answer, get

if TYPE_CHECKING:
    from typing import Self

log = logging.getLogger("wsframe.client")

SCHEMES = {"http": False, "https": True}
REDIRECTS = frozenset((301, 302, 303, 307, 308))
MAX_REDIRECTS = 10
# What only this module may put into a request, and what is for no other origin than the first.
OURS = frozenset(("accept", "accept-encoding", "cache-control", "connection", "host"))
SECRETS = frozenset(("authorization", "cookie", "proxy-authorization"))

# Between two tries, in seconds: what can be asked for, and what failures make of it.
MIN_RETRY, MAX_RETRY = 0.1, 3600.0
MAX_BACK_OFF = 60.0
MAX_JITTER = 0.25  # of the time


class EventSource:
    """The events of one URL, in order, as an iterator; :func:`events` makes them.

    One thread iterates at a time, and does all the work. When the connection ends or is lost, it
    waits, connects again and asks for what has come since; iteration ends when the server answers
    204, or by :meth:`close`.

    As a context manager it closes when it is left.

    Attributes:
        last_event_id: the id of the event that was returned last, or the one to begin behind, or
            "": what a program keeps that wants to go on there when it is started again.
        retry: how long to wait before connecting again, in seconds: what the server has asked for
            last, held between 0.1 and 3600. After failures it is doubled each time, up to 60.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Headers,
        last_event_id: str,
        ssl: SSLContext | None,
        open_timeout: float,
        read_timeout: float | None,
        retry: float,
        max_event_size: int,
    ) -> None:
        if not _can_be_sent(last_event_id):
            raise ValueError(f"control characters must not stand in a header: {last_event_id!r}")
        self.last_event_id = last_event_id
        self._known_id = last_event_id  # that of the last event that has come
        self.retry = _in_bounds(retry)
        self._url = url
        self._location = Location.of(url, SCHEMES)
        self._headers = self._location.with_authorization(headers)
        for name, value in self._headers:
            check_field(name, value)
            if name.lower() in OURS or name.lower() == "last-event-id":
                raise ValueError(f"the event stream itself says what {name} is")
        self._ssl = ssl
        self._open_timeout = open_timeout
        self._read_timeout = read_timeout
        self._max_event_size = max_event_size
        self._failures = 0  # one after the other
        self._events: deque[ServerSentEvent] = deque()
        self._answer: Answer | None = None
        self._decoder = EventStreamDecoder()
        self._closed = threading.Event()
        self._line = Line()
        self._lock = threading.Lock()
        self._iterated = False  # by a thread that is in __next__

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ServerSentEvent:
        """One thread at a time: wait for the next event.

        Raises:
            StopIteration: the server has answered 204, or :meth:`close` was called.
            HandshakeError: as :func:`events`, when it connects again; that is the end.
            ProtocolError: an event is over the limit; that is the end.
            RuntimeError: another thread is in this method.
        """
        self._begin_turn()
        try:
            while not self._closed.is_set():
                if self._events:
                    event = self._events.popleft()
                    if _can_be_sent(event.id or ""):
                        self.last_event_id = event.id or ""
                    return event
                if self._answer is None:
                    self._reconnect()
                else:
                    self._read(self._answer)
        except WSFrameError:
            self._closed.set()
            raise
        except BaseException:
            # Interrupted: what was read may be lost, but for the server.
            self._answer = None
            self._line.close()
            raise
        finally:
            self._end_turn()
        raise StopIteration

    def close(self) -> None:
        """Any thread: end the iteration, also one that waits."""
        self._closed.set()
        with self._lock:
            self._line.cut()
            if not self._iterated:
                self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _begin_turn(self) -> None:
        with self._lock:
            if self._iterated:
                raise RuntimeError("another thread iterates over this EventSource")
            self._iterated = True

    def _end_turn(self) -> None:
        with self._lock:
            self._iterated = False
            if self._closed.is_set():
                self._line.close()

    # The thread that iterates ------------------------------------------------------------------

    def _open(self) -> None:
        """Connect, and begin to read where the last stream has ended.

        Raises:
            OSError: that is not possible now.
            HandshakeError: it never will be.
        """
        answer = self._ask()
        if answer.status == 204:
            self._closed.set()
            self._line.close()
            return
        if answer.status != 200:
            raise HandshakeError(
                answer.status, f"the server answered {answer.status}", answer.headers
            )
        if answer.content_type != "text/event-stream":
            raise HandshakeError(
                502, f"the answer is {answer.content_type}, no event stream", answer.headers
            )
        self._decoder = EventStreamDecoder(
            max_event_size=self._max_event_size, last_event_id=self._known_id
        )
        self._answer = answer

    def _ask(self) -> Answer:
        """Send the request to where it leads in the end; return the answer from there."""
        deadline = monotonic() + self._open_timeout
        url, location, headers = self._url, self._location, self._headers
        for _ in range(MAX_REDIRECTS + 1):
            answer = get(
                location,
                [*self._own_headers(location), *headers],
                deadline=deadline,
                ssl=self._ssl,
                timeout=self._read_timeout,
                line=self._line,
            )
            if answer.status not in REDIRECTS:
                return answer
            url, location, headers = _follow(answer, url, location, headers)
        raise HandshakeError(answer.status, "too many redirects", answer.headers)

    def _own_headers(self, location: Location) -> list[tuple[str, str]]:
        headers = [
            ("Host", location.authority),
            ("Accept", "text/event-stream"),
            ("Accept-Encoding", "identity"),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
        ]
        if self._known_id:
            # In UTF-8 (WHATWG HTML section 9.2.4), which no other header is.
            headers.append(("Last-Event-ID", self._known_id.encode().decode("latin-1")))
        return headers

    def _reconnect(self) -> None:
        """Wait, unless it is closed meanwhile, and connect."""
        if self._closed.wait(self._delay()):
            return
        try:
            self._open()
        except OSError as error:
            self._failures += 1
            self._line.close()
            log.info("no event stream from %s: %s", self._location.authority, error)
        else:
            self._failures = 0

    def _delay(self) -> float:
        """How long to wait; never less than the server asks for, and each client otherwise."""
        doubled = self.retry * 2.0 ** min(self._failures, 20)
        return max(self.retry, min(doubled, MAX_BACK_OFF)) * random.uniform(1, 1 + MAX_JITTER)

    def _read(self, answer: Answer) -> None:
        """Wait for what comes next; at the end, drop the connection."""
        self._decoder.receive(b"")  # raises what came behind the last events, before a wait
        try:
            data = answer.read()
        except OSError as error:
            log.info("the event stream from %s is lost: %s", self._location.authority, error)
            data = b""
        if not data:
            self._answer = None
            self._line.close()
            return
        received = self._decoder.receive(data)
        self._events.extend(received)
        # Behind an id that cannot be sent, what followed the one before it comes again.
        for event_id in (*(event.id or "" for event in received), self._decoder.last_event_id):
            if _can_be_sent(event_id):
                self._known_id = event_id
        if self._decoder.retry is not None:
            self.retry = _in_bounds(self._decoder.retry / 1000)


def events(
    url: str,
    *,
    headers: Headers = (),
    last_event_id: str = "",
    ssl: SSLContext | None = None,
    open_timeout: float = 10.0,
    read_timeout: float | None = None,
    retry: float = 3.0,
    max_event_size: int = 1 << 20,
) -> EventSource:
    """Any thread: open an event stream, and return its events, to be iterated over.

    Redirects are followed, but not from "https" to "http"; no ``Authorization`` and no ``Cookie``
    goes to another origin. Proxies are not used.

    Args:
        url: "http://..." or "https://...", with no fragment; a user and a password in it become an
            ``Authorization`` header.
        headers: what the request carries besides, as (name, value) pairs, or a mapping.
        last_event_id: the id of the last event that is known, for the server to go on behind it.
        ssl: the context for "https"; None for the system's certificates.
        open_timeout: how long a connection may take until the head of the answer has come, in
            seconds, but for the system's name lookup.
        read_timeout: how long the stream may be silent before it is taken for lost, in seconds;
            comments count. None for ever: then a server that vanishes without a word is not missed.
        retry: how long to wait before connecting again, in seconds, unless the server says it.
        max_event_size: the most characters that an event may have.

    Raises:
        HandshakeError: the server has answered anything but 200 or 204, or no event stream.
        OSError: there is no connection. Later, a connection that fails is tried again.
        ValueError: the URL is malformed, or another argument is not in order.
    """
    source = EventSource(
        url,
        headers=headers,
        last_event_id=last_event_id,
        ssl=ssl,
        open_timeout=open_timeout,
        read_timeout=read_timeout,
        retry=retry,
        max_event_size=max_event_size,
    )
    try:
        source._open()
    except BaseException:
        source.close()
        raise
    return source


def _follow(
    answer: Answer, url: str, location: Location, headers: list[tuple[str, str]]
) -> tuple[str, Location, list[tuple[str, str]]]:
    """Return where a redirect leads, and which of the headers go there."""
    target = answer.header("Location")
    try:
        if target is None:
            raise ValueError("a redirect to nowhere")
        url = urldefrag(urljoin(url, target)).url
        there = Location.of(url, SCHEMES)
        if location.secure and not there.secure:
            raise ValueError("a redirect away from TLS")
    except ValueError as error:
        raise HandshakeError(answer.status, str(error), answer.headers) from None
    if there.origin != location.origin:
        headers = [(name, value) for name, value in headers if name.lower() not in SECRETS]
    return url, there, there.with_authorization(headers)


def _can_be_sent(event_id: str) -> bool:
    return not FORBIDDEN_IN_A_VALUE.search(event_id)


def _in_bounds(retry: float) -> float:
    return min(max(retry, MIN_RETRY), MAX_RETRY)
