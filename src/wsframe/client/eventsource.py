"""EventSource: an event stream that reconnects automatically (WHATWG HTML section 9.2)."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from ssl import SSLContext
from time import monotonic
from typing import TYPE_CHECKING

from ..closing import Closing
from ..errors import HandshakeError, WSFrameError
from ..headers import FORBIDDEN_IN_A_VALUE, Headers
from ..shown import short, show
from ..sse import EventStreamDecoder, ServerSentEvent
from .deadline import check_timeout
from .dial import SocketSlot
from .pause import Pause, retry_after
from .redirects import Request

if TYPE_CHECKING:
    from typing import Self

    from .http import Response

log: logging.Logger = logging.getLogger("wsframe.client")

# The statuses of temporary errors, after which the client tries again.
TEMPORARY = frozenset((408, 429, *range(500, 600)))
# The minimum duration of a stream without events, in seconds. A shorter stream counts as a failure,
# so that clients do not reconnect to a broken server as fast as its ``retry`` allows.
STEADY = 5.0


@dataclass(frozen=True)
class Reconnect:
    """The end of a connection of an event stream, and the delay before the next connection.

    >>> Reconnect(error=None, failures=0, delay=1.5).delay
    1.5

    Attributes:
        error: the error that ended the stream or prevented it; None if the server ended it.
        failures: the number of consecutive failures; 0 after a stream that has sent events.
        delay: the time until the next attempt, in seconds.
    """

    error: OSError | HandshakeError | None
    failures: int
    delay: float


def ignore(*_: object) -> None:
    """Do nothing."""


class EventSource(Closing):
    """An iterator over the events of one URL, in order; call :func:`events` to create it.

    One thread iterates at a time, and does all the work. When the connection ends or is lost, that
    thread waits, reconnects and requests the events after the last received one. It also does so
    when the server answers 408, 429 or 5xx, and waits as long as ``Retry-After`` asks, up to an
    hour. The iteration ends when the server answers 204, or when :meth:`close` is called. If
    ``reconnect`` is false, the iteration also ends when the stream ends.

    The delay before a reconnect is doubled after each failure, up to 60 seconds. A stream that ends
    within 5 seconds without an event also counts as a failure.

    A ``with`` statement closes the event source at its end.

    >>> with events("http://localhost:9292/news") as stream:
    ...     next(stream).data
    'hello'

    Attributes:
        last_event_id: the id of the last returned event; before the first, the ``last_event_id``
            that was passed to :func:`events`. A program can store this id, and pass it to
            :func:`events` later to continue after that event.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Headers,
        method: str,
        body: bytes,
        last_event_id: str,
        reconnect: bool | None,
        on_open: Callable[[], object],
        on_reconnect: Callable[[Reconnect], object],
        ssl: SSLContext | None,
        open_timeout: float,
        read_timeout: float | None,
        retry: float,
        max_event_size: int,
    ) -> None:
        if not _can_be_sent(last_event_id):
            raise ValueError(
                f"last_event_id must not contain control characters: {last_event_id!r}"
            )
        self.last_event_id: str = last_event_id
        read_timeout = inf if read_timeout is None else check_timeout("read_timeout", read_timeout)
        if read_timeout == 0:
            raise ValueError("read_timeout must be more than 0")
        self._request = Request(
            url,
            headers,
            method=method,
            body=body,
            ssl=ssl,
            open_timeout=check_timeout("open_timeout", open_timeout),
            read_timeout=read_timeout,
        )
        self._known_id = last_event_id  # the id of the last received event
        self._origin_of_id = self._request.location.origin
        self._pause = Pause(check_timeout("retry", retry))
        self._reconnects = method == "GET" if reconnect is None else reconnect
        self._on_open = on_open
        self._on_reconnect = on_reconnect
        self._error: OSError | HandshakeError | None = None  # the end of the last connection
        self._max_event_size = max_event_size
        self._origin = self._request.location.origin  # the origin of the current stream
        self._opened = 0.0  # the time when the stream was opened, on the monotonic clock
        self._served = False  # True after the first event of the stream
        self._events: deque[ServerSentEvent] = deque()
        self._answer: Response | None = None
        self._decoder = EventStreamDecoder(max_event_size=max_event_size)
        self._closed = threading.Event()
        self._slot = SocketSlot()
        self._lock = threading.Lock()
        self._iterated = False  # True while a thread is in __next__

    @property
    def retry(self) -> float:
        """The delay before reconnecting, in seconds, limited to 0.5-3600.

        The ``retry`` field of an event changes it.
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
            StopIteration: the server answered 204, or :meth:`close` was called; or the stream has
                ended, and ``reconnect`` is false.
            HandshakeError: as :func:`events`, while reconnecting; the iteration is over.
            OSError: the stream was lost, and ``reconnect`` is false; the iteration is over.
            ProtocolError: an event exceeds ``max_event_size``; the iteration is over.
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
            # After an interruption, data may be lost, so the client reconnects and requests it
            # again if possible.
            self._answer = None
            self._slot.close()
            if not self._reconnects:
                self._closed.set()
            raise
        finally:
            self._leave()
        raise StopIteration

    def close(self) -> None:
        """Any thread: end the iteration, also while a thread waits for an event."""
        self._closed.set()
        with self._lock:
            self._slot.cut()
            if not self._iterated:
                self._slot.close()

    def __repr__(self) -> str:
        location = self._request.location
        path = location.target.partition("?")[0]  # a query may contain a secret
        host = short(location.authority)
        return show(self, host, short(path), last_event_id=self.last_event_id, retry=self.retry)

    def _enter(self) -> None:
        with self._lock:
            if self._iterated:
                raise RuntimeError("another thread is iterating over this EventSource")
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
        """Begin to read the stream of a response.

        Raises:
            HandshakeError: the response is not an event stream.
        """
        if answer.status == 204:
            self._closed.set()
            self._slot.close()
            return
        if answer.status != 200:
            raise answer.error()
        if answer.content_type != "text/event-stream":
            raise HandshakeError(
                502,
                "the response is not an event stream: its Content-Type is "
                f"{answer.content_type[:100]!r}",
                answer.headers,
                answer.refusal(),
            )
        answer.decode()
        self._decoder = EventStreamDecoder(
            max_event_size=self._max_event_size, last_event_id=self._known_id
        )
        self._answer = answer
        self._opened = monotonic()
        self._served = False
        self._error = None
        self._on_open()

    def _reconnect(self) -> None:
        """Wait for the delay, then connect; return early if closed meanwhile."""
        delay = self._pause.seconds()
        self._on_reconnect(Reconnect(self._error, self._pause.failures, delay))
        if self._closed.wait(delay):
            return
        try:
            answer = self._ask()
        except OSError as error:
            self._fail(error)
            return
        if answer.status in TEMPORARY:
            wait = retry_after(answer.values("retry-after"), answer.values("date"))
            self._fail(answer.error(), wait)
            return
        self._begin(answer)

    def _fail(self, error: OSError | HandshakeError, retry_after: float = 0.0) -> None:
        """Record an attempt to reconnect that has failed."""
        self._pause.fail(retry_after)
        self._slot.close()
        self._error = error
        host = self._request.location.authority
        reason = error.reason if isinstance(error, HandshakeError) else error
        log.info("cannot open the event stream from %s: %s", host, reason)

    def _read(self, answer: Response) -> None:
        """Wait for the next data; at the end of the stream, close the connection."""
        # Raises a pending error that the decoder has found after the last events.
        self._decoder.receive(b"")
        try:
            data = answer.read()
        except OSError as error:
            host = self._request.location.authority
            log.info("lost the event stream from %s: %s", host, error)
            self._error = error
            data = b""
        if not data:
            self._answer = None
            self._slot.close()
            if not self._reconnects:
                self._closed.set()
                if self._error is not None:
                    raise self._error
                return
            if self._served or monotonic() - self._opened >= STEADY:
                self._pause.succeed()
            else:
                self._pause.fail()
            return
        received = self._decoder.receive(data)
        self._served = self._served or bool(received)
        self._events.extend(received)
        # An id that cannot be sent in a header is skipped. Then events after the previous id may be
        # repeated.
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
    method: str = "GET",
    body: bytes = b"",
    last_event_id: str = "",
    reconnect: bool | None = None,
    on_open: Callable[[], object] = ignore,
    on_reconnect: Callable[[Reconnect], object] = ignore,
    ssl: SSLContext | None = None,
    open_timeout: float = 10.0,
    read_timeout: float | None = None,
    retry: float = 3.0,
    max_event_size: int = 1 << 20,
) -> EventSource:
    """Any thread: open an event stream, and return an iterator over its events.

    Redirects are followed, except from "https" to "http". Of the caller's headers, other origins
    receive only ``User-Agent``; they receive ``Last-Event-ID`` only if they sent the id. Proxies
    are not used. A body that is compressed with gzip or deflate is decompressed. A request with a
    body is redirected only within its origin, or as a GET request without the body.

    Args:
        url: "http://..." or "https://...", without a fragment. A user and a password are sent in
            an ``Authorization`` header.
        headers: additional headers of the request, as (name, value) pairs or a mapping. A
            ``User-Agent`` replaces the client's own.
        method: the method of the request, such as "POST".
        body: the body of a request other than GET; pass its ``Content-Type`` in ``headers``.
        last_event_id: the id of the last known event; the server continues after it.
        reconnect: True to send the request again when the stream ends or is lost. None to do so
            only for GET, because repeating other requests may repeat their effect.
        on_open: a function that the iterating thread calls for each opened stream; this function
            calls it for the first stream.
        on_reconnect: a function that the iterating thread calls before each delay.
        ssl: the context for "https", also after redirects, with an optional client certificate;
            None for the system's certificates.
        open_timeout: the limit from connecting to the head of the response, in seconds, without
            the system's name lookup; ``math.inf`` for no limit.
        read_timeout: the longest silence of the stream before it counts as lost, in seconds;
            comments end a silence. None for no limit; then a server that disappears without closing
            the connection is not detected.
        retry: the delay before reconnecting, in seconds, until the server sends another.
        max_event_size: the maximum number of characters of one event.

    Raises:
        HandshakeError: the status is not 200 or 204, the response is not an event stream, or its
            framing or content coding is not supported. The error contains the first bytes of the
            response. After the first stream was opened, the statuses 408, 429 and 5xx cause another
            attempt instead.
        OSError: connecting failed, or the response is malformed. After the first stream was opened,
            this causes another attempt instead.
        ValueError: the URL is malformed, or another argument is not valid.
        ImportError: the extra ``client`` is not installed.
    """
    source = EventSource(
        url,
        headers=headers,
        method=method,
        body=body,
        reconnect=reconnect,
        on_open=on_open,
        on_reconnect=on_reconnect,
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
