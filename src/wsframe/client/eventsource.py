"""EventSource: an event stream that reconnects automatically (WHATWG HTML section 9.2)."""

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

# Statuses of temporary errors, after which the client tries again.
TEMPORARY = frozenset((408, 429, *range(500, 600)))
# In seconds. A stream that ends earlier without an event counts as a failure. Otherwise clients
# would reconnect to a broken server as fast as its ``retry`` allows.
STEADY = 5.0


class EventSource(Closing):
    """An iterator over the events of one URL, in order; call :func:`events` to create it.

    One thread iterates at a time, and does all the work. When the connection ends or is lost, that
    thread waits, reconnects and requests the events since then. It also does so when the server
    answers 408, 429 or 5xx, and waits as long as ``Retry-After`` asks, up to an hour. The
    iteration ends when the server answers 204, or when :meth:`close` is called.

    The delay is doubled after each failure, up to 60 seconds. A stream that ends within 5 seconds
    without an event also counts as a failure.

    A ``with`` statement closes the event source at its end.

    Attributes:
        last_event_id: the id of the last returned event; before the first, the ``last_event_id``
            that was passed to :func:`events`. A program can store it and resume there later.
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
            raise ValueError(
                f"last_event_id must not contain control characters: {last_event_id!r}"
            )
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
        self._known_id = last_event_id  # the id of the last received event
        self._origin_of_id = self._request.location.origin
        self._pause = Pause(check_timeout("retry", retry))
        self._max_event_size = max_event_size
        self._origin = self._request.location.origin  # the origin of the current stream
        self._opened = 0.0  # the time when the stream was opened, on the monotonic clock
        self._served = False  # True once the stream has sent an event
        self._events: deque[ServerSentEvent] = deque()
        self._answer: Response | None = None
        self._decoder = EventStreamDecoder()
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
            StopIteration: the server answered 204, or :meth:`close` was called.
            HandshakeError: as :func:`events`, while reconnecting; the iteration is over.
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
            # Interrupted: data may be lost, so reconnect and request it again.
            self._answer = None
            self._slot.close()
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
        """Begin to read the stream of this response.

        Raises:
            HandshakeError: the response is not an event stream.
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
                "the response is not an event stream: its Content-Type is "
                f"{answer.content_type[:100]!r}",
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
        """Wait for the delay, then connect; return early if closed meanwhile."""
        if self._closed.wait(self._pause.seconds()):
            return
        host = self._request.location.authority
        try:
            answer = self._ask()
        except OSError as error:
            self._pause.fail()
            self._slot.close()
            log.info("cannot open the event stream from %s: %s", host, error)
            return
        if answer.status in TEMPORARY:
            self._pause.fail(retry_after(answer.values("retry-after"), answer.values("date")))
            self._slot.close()
            log.info(
                "cannot open the event stream from %s: the server answered %s", host, answer.status
            )
            return
        self._begin(answer)

    def _read(self, answer: Response) -> None:
        """Wait for the next data; at the end of the stream, close the connection."""
        self._decoder.receive(b"")  # raises an error that was found after the last events
        try:
            data = answer.read()
        except OSError as error:
            host = self._request.location.authority
            log.info("lost the event stream from %s: %s", host, error)
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
        # An id that cannot be sent is skipped, so events after the previous id may be repeated.
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
    """Any thread: open an event stream, and return an iterator over its events.

    Redirects are followed, except from "https" to "http". Of the caller's headers, other origins
    receive only ``User-Agent``; they receive ``Last-Event-ID`` only if they sent the id. Proxies
    are not used. A body that is compressed with gzip or deflate is decompressed.

    Args:
        url: "http://..." or "https://...", without a fragment. A user and a password are sent in
            an ``Authorization`` header.
        headers: additional headers of the request, as (name, value) pairs or a mapping. A
            ``User-Agent`` replaces the client's own.
        last_event_id: the id of the last known event; the server continues after it.
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
            framing or content coding is not supported. After the first stream was opened, the
            statuses 408, 429 and 5xx cause another attempt instead.
        OSError: connecting failed, or the response is malformed. After the first stream was opened,
            this causes another attempt instead.
        ValueError: the URL is malformed, or another argument is not valid.
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
