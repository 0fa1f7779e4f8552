"""EventSource: an event stream that comes back by itself (WHATWG HTML section 9.2)."""

from __future__ import annotations

import logging
import threading
from collections import deque
from math import inf
from ssl import SSLContext
from time import monotonic
from typing import TYPE_CHECKING

from ..closing import Closing
from ..errors import HandshakeError, WSFrameError
from ..fields import FORBIDDEN_IN_A_VALUE, Headers
from ..sse import EventStreamDecoder, ServerSentEvent
from .deadline import check_timeout
from .dial import SocketSlot
from .pause import Pause, retry_after
from .redirects import Request

if TYPE_CHECKING:
    from typing import Self

    from .http import Response

log = logging.getLogger("wsframe.client")

# Statuses of a server that may serve the stream later.
TEMPORARY = frozenset((408, 429, *range(500, 600)))
# A stream that has ended without an event counts as a failure, unless it was open for so long, in
# seconds: else a server could have clients connect as fast as its ``retry`` allows, for nothing.
STEADY = 5.0


class EventSource(Closing):
    """The events of one URL, in order, as an iterator; :func:`events` makes them.

    One thread iterates at a time, and does all the work. When the connection ends or is lost, that
    thread waits, connects again and asks for the events since then. So it does when the server
    answers 408, 429 or 5xx, and it waits as long as ``Retry-After`` asks, up to an hour. The
    iteration ends when the server answers 204, or by :meth:`close`.

    After failures the wait is doubled each time, up to 60 seconds. A stream that ends within 5
    seconds, without an event, counts as a failure, too.

    As a context manager it closes when it is left.

    Attributes:
        last_event_id: the id of the event that was returned last, or the one to begin after, or
            "". A program that keeps it can go on from there when it is started again.
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
        read_timeout = inf if read_timeout is None else check_timeout("read_timeout", read_timeout)
        if read_timeout == 0:
            raise ValueError("read_timeout must be more than 0")
        self._request = Request(
            url,
            headers,
            ssl=ssl,
            open_timeout=check_timeout("open_timeout", open_timeout),
            read_timeout=read_timeout,
        )
        self._known_id = last_event_id  # that of the last event that has come
        self._origin_of_id = self._request.location.origin
        self._pause = Pause(check_timeout("retry", retry))
        self._max_event_size = max_event_size
        self._origin = self._request.location.origin  # of the stream that is read
        self._opened = 0.0  # when, on the monotonic clock
        self._served = False  # whether it has brought an event
        self._events: deque[ServerSentEvent] = deque()
        self._answer: Response | None = None
        self._decoder = EventStreamDecoder()
        self._closed = threading.Event()
        self._slot = SocketSlot()
        self._lock = threading.Lock()
        self._iterated = False  # by a thread that is in __next__

    @property
    def retry(self) -> float:
        """How long to wait before connecting again, in seconds: what the server asked for last.

        It is held between 0.5 and 3600.
        """
        return self._pause.retry

    @retry.setter
    def retry(self, seconds: float) -> None:
        self._pause.retry = check_timeout("retry", seconds)

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
        self._enter()
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
            self._slot.close()
            raise
        finally:
            self._leave()
        raise StopIteration

    def close(self) -> None:
        """Any thread: end the iteration, also one that waits."""
        self._closed.set()
        with self._lock:
            self._slot.cut()
            if not self._iterated:
                self._slot.close()

    def _enter(self) -> None:
        with self._lock:
            if self._iterated:
                raise RuntimeError("another thread iterates over this EventSource")
            self._iterated = True

    def _leave(self) -> None:
        with self._lock:
            self._iterated = False
            if self._closed.is_set():
                self._slot.close()

    # The thread that iterates ------------------------------------------------------------------

    def _open(self) -> None:
        """Connect for the first time.

        Raises:
            OSError, HandshakeError: as :func:`events`.
        """
        self._begin(self._ask())

    def _ask(self) -> Response:
        answer, self._origin = self._request.send(self._known_id, self._origin_of_id, self._slot)
        return answer

    def _begin(self, answer: Response) -> None:
        """Begin to read where the last stream has ended.

        Raises:
            HandshakeError: the response is no event stream.
        """
        if answer.status == 204:
            self._closed.set()
            self._slot.close()
            return
        if answer.status != 200:
            raise HandshakeError(
                answer.status, f"the server answered {answer.status}", answer.headers
            )
        if answer.content_type != "text/event-stream":
            raise HandshakeError(
                502,
                f"the response is no event stream: its type is {answer.content_type[:100]!r}",
                answer.headers,
            )
        answer.decode()
        self._decoder = EventStreamDecoder(
            max_event_size=self._max_event_size, last_event_id=self._known_id
        )
        self._answer = answer
        self._opened = monotonic()
        self._served = False

    def _reconnect(self) -> None:
        """Wait, unless it is closed meanwhile, and connect."""
        if self._closed.wait(self._pause.seconds()):
            return
        host = self._request.location.authority
        try:
            answer = self._ask()
        except OSError as error:
            self._pause.fail()
            self._slot.close()
            log.info("no event stream from %s: %s", host, error)
            return
        if answer.status in TEMPORARY:
            self._pause.fail(retry_after(answer.values("retry-after"), answer.values("date")))
            self._slot.close()
            log.info("no event stream from %s: the server answered %s", host, answer.status)
            return
        self._begin(answer)

    def _read(self, answer: Response) -> None:
        """Wait for what comes next; at the end, drop the connection."""
        self._decoder.receive(b"")  # raises what came behind the last events, before a wait
        try:
            data = answer.read()
        except OSError as error:
            host = self._request.location.authority
            log.info("the event stream from %s is lost: %s", host, error)
            data = b""
        if not data:
            self._answer = None
            self._slot.close()
            if self._served or monotonic() - self._opened >= STEADY:
                self._pause.succeed()
            else:
                self._pause.fail()
            return
        received = self._decoder.receive(data)
        self._served = self._served or bool(received)
        self._events.extend(received)
        # Behind an id that cannot be sent, what followed the one before it comes again.
        for event_id in (*(event.id or "" for event in received), self._decoder.last_event_id):
            if event_id != self._known_id and _can_be_sent(event_id):
                self._known_id = event_id
                self._origin_of_id = self._origin
        if self._decoder.retry is not None:
            self._pause.retry = self._decoder.retry / 1000


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

    Redirects are followed, but not from "https" to "http". To another origin goes none of the
    caller's headers but ``User-Agent``, and ``Last-Event-ID`` only if the id came from there.
    Proxies are not used. A body that is compressed with gzip or deflate is inflated.

    Args:
        url: "http://..." or "https://...", with no fragment; a user and a password in it become an
            ``Authorization`` header.
        headers: further headers of the request, as (name, value) pairs, or a mapping. A
            ``User-Agent`` replaces the client's own.
        last_event_id: the id of the last event that is known; the server goes on after it.
        ssl: the context for "https", also where a redirect leads, with the certificate of the
            client that it may have; None for the system's certificates.
        open_timeout: how long a connection may take until the head of the response has arrived, in
            seconds, without the system's name lookup; ``math.inf`` for no limit.
        read_timeout: how long the stream may be silent before it counts as lost, in seconds;
            comments end a silence. None for no limit: then a server that vanishes without closing
            the connection is not noticed.
        retry: how long to wait before connecting again, in seconds, unless the server sends one.
        max_event_size: the most characters that an event may have.

    Raises:
        HandshakeError: the server has answered anything but 200 or 204, the response is no event
            stream, or its framing or its content coding is not understood. Once a stream has been
            open, the statuses 408, 429 and 5xx only lead to another try.
        OSError: there is no connection, or the response is malformed. Once a stream has been open,
            this only leads to another try.
        ValueError: the URL is malformed, or another argument is not in order.
        ImportError: the extra ``client`` is not installed.
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


def _can_be_sent(event_id: str) -> bool:
    return not FORBIDDEN_IN_A_VALUE.search(event_id)
