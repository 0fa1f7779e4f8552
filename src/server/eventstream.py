"""Event streams: what a handler sees of one, and the queue that feeds many."""

from __future__ import annotations

import inspect
import json
import logging
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from math import inf
from queue import Queue
from typing import TYPE_CHECKING, Any

from wsframe import CloseCode, ConnectionClosed, ServerSentEvent
from wsframe.fields import encode_response

from .http import refuse_for_want_of_threads
from .peer import Peer, Protocol
from .turns import Turns

if TYPE_CHECKING:
    from .http import Request
    from .loop import Loop
    from .turns import Habit

log = logging.getLogger("wsframe.server")

COMMENT = b":\n\n"


def encode_stream_head() -> bytes:
    """The answer that an event stream follows; its end is the end of the connection.

    Proxies are asked to hold nothing back.
    """
    return encode_response(
        200,
        [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", "text/event-stream; charset=utf-8"),
            ("Cache-Control", "no-store, no-transform"),
            ("X-Accel-Buffering", "no"),
            ("Connection", "close"),
        ],
    )


def as_event(item: object) -> ServerSentEvent:
    """The event for an item: itself, the data that a ``str`` is, or the JSON of anything else.

    Raises:
        TypeError: JSON has no form for the item.
        ValueError: it contains itself, or a number that is none.
    """
    if isinstance(item, ServerSentEvent):
        return item
    return ServerSentEvent(item if isinstance(item, str) else json.dumps(item, allow_nan=False))


# What a queue raises that was shut down, as it can be from Python 3.13 on.
SHUT_DOWN: list[type[Exception]] = []
if sys.version_info >= (3, 13):
    SHUT_DOWN.append(queue.ShutDown)


def _nothing() -> None:
    """The task_done of a queue that has none."""


class EventStream:
    """One client's event stream, as its handler sees it.

    A generator function yields what is to be sent, and its end is the stream's end; it has a thread
    of its own while it runs. A plain function calls :meth:`send`, and the stream stays open after
    it, for other threads to go on with; it has a thread only if it blocks.

    Attributes:
        request: the request that opened the stream.
    """

    def __init__(self, session: EventStreamSession, request: Request) -> None:
        self.request = request
        self._session = session

    @property
    def last_event_id(self) -> str:
        """Any thread: the ``Last-Event-ID`` of a client that comes back; "" for a new one."""
        # The one header that is sent in UTF-8 (WHATWG HTML section 9.2.3).
        last_event_id = self.request.headers.get("Last-Event-ID") or ""
        return last_event_id.encode("latin-1").decode("utf-8", "replace")

    @property
    def closed(self) -> bool:
        """Any thread: whether the stream is over."""
        return self._session.over

    def send(self, item: object) -> None:
        """Any thread: send an event: a ServerSentEvent, a ``str``, or anything that JSON can say.

        A thread other than the loop's waits while too much is queued for a client that is too slow.

        Raises:
            ConnectionClosed: the client has left, or the stream was closed.
            TypeError: JSON has no form for the item.
            ValueError: the item contains itself, or a number that is none.
        """
        self._session.send(as_event(item).encode())

    def close(self) -> None:
        """Any thread: end the stream, after what was sent before. A browser will come back."""
        self._session.request_close()


class EventStreamSession(Protocol, Turns):
    """The server's side of one event stream.

    Its handler has one turn. A generator's is in a thread from the beginning, for it waits inside.

    Attributes:
        over: set once, when the client has left or the stream was closed; nothing is sent after it.
    """

    __slots__ = ("_feed", "_handler", "_sent", "over", "stream")

    def __init__(
        self,
        peer: Peer,
        habit: Habit,
        request: Request,
        feed: Feed | None,
        handler: Callable[..., Any] | None,
    ) -> None:
        super().__init__(peer, habit)
        self.over = False
        self.stream = EventStream(self, request)
        self._feed = feed
        self._sent = 0  # bytes, when it was last looked
        self._handler = handler
        if inspect.isgeneratorfunction(handler):
            self.credit = inf

    # Owner ------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Any thread: the path of the request."""
        return self.stream.request.path

    def start(self) -> None:
        """Owner: begin to feed the stream; its head is queued."""
        self._look_again()
        if self._feed is not None:
            self._feed.sessions[self.peer.loop].add(self)
        if self._handler is not None:
            self.work = [None]  # there is one turn, and it is all of the handler
            self.unsettled = True
            self.begin()
        else:
            self.peer.flush()

    def settle(self) -> None:
        """Owner: the handler is over; it has asked for the end of the stream, if it wants one."""
        self.end()

    def refuse(self) -> bool:
        """Owner: there is no thread."""
        self.end()
        refuse_for_want_of_threads(self.peer)
        return True

    def feed(self, event: bytes) -> None:
        """Owner: send what all streams of the feed get; a client that is too slow is cut off.

        It comes back by itself, which is better than to hold up the others or the memory.
        """
        if self.peer.congested:
            self.peer.cut_off("is too slow for its event stream")
        else:
            self.peer.out.append(event)
            self.peer.flush()

    def data_received(self, data: memoryview) -> None:
        """Owner: a client has nothing to say here."""

    def peer_left(self) -> None:
        """Owner: the client has left, or the stream was closed."""
        self.over = True
        if self._feed is not None:
            self._feed.sessions[self.peer.loop].discard(self)

    def deadline_passed(self) -> None:
        """Owner: send a comment, if nothing has been sent for half of the time that may be so."""
        if self._sent == self.peer.bytes_out and not self.peer.has_unsent:
            self.peer.send_aside(COMMENT)
        self._look_again()

    def _look_again(self) -> None:
        self._sent = self.peer.bytes_out
        heartbeat = self.peer.loop.settings.heartbeat
        if heartbeat and not self.peer.closed:
            self.peer.due_in(heartbeat / 2)

    def shut_down(self) -> None:
        """Owner: the server stops."""
        self.over = True
        self.peer.finish()

    # Any thread -------------------------------------------------------------------------------

    def send(self, event: bytes) -> None:
        """Any thread: queue an event."""
        if self.over:
            raise ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "the event stream is over")
        self.peer.send(event)

    def request_close(self) -> None:
        """Any thread: have the owner end the stream, after what was sent before."""
        self.over = True
        self.peer.loop.call_soon(self.peer.finish)

    # Whichever thread has the turn ------------------------------------------------------------

    def run(self, work: list[Any]) -> None:
        """Whichever thread has the turn: all of the handler."""
        assert self._handler is not None
        try:
            result = self._handler(self.stream, **self.stream.request.parameters)
            if not inspect.isgenerator(result):
                return
            try:
                for item in result:
                    self.stream.send(item)
            finally:
                result.close()
        except BaseException as error:  # SystemExit, too, ends this handler alone
            # The end of this stream is no failure; another's is one like any.
            if not (isinstance(error, ConnectionClosed) and self.over):
                log.exception("the handler of %s failed", self.path)
        self.request_close()


class _Mark(threading.Event):
    """An item that is set when a feed comes to it."""


class Feed:
    """A queue whose every item goes to every stream of one route.

    Attributes:
        sessions: the streams of each loop; each set is its owner's.
    """

    def __init__(self, loops: Sequence[Loop], source: Queue[Any]) -> None:
        self.sessions: dict[Loop, set[EventStreamSession]] = {loop: set() for loop in loops}
        self._source = source
        self._caught_up = _Mark()
        self._done: Callable[[], object] = getattr(source, "task_done", _nothing)
        self._thread = threading.Thread(target=self._run, name="wsframe-feed", daemon=True)

    def start(self) -> None:
        """Any thread, once: begin to take items off the queue."""
        self._thread.start()

    def catch_up(self) -> None:
        """Any thread, until it is stopped: wait until what was put before is on its way."""
        with suppress(*SHUT_DOWN):
            self._source.put(self._caught_up)
        self._caught_up.wait()

    def stop(self) -> None:
        """Any thread, once: take no more items, and wait until the thread has ended."""
        with suppress(*SHUT_DOWN):
            self._source.put(self)  # which ends the thread
        self._thread.join()

    def _run(self) -> None:
        with suppress(*SHUT_DOWN):  # the queue's end is ours
            self._take_items()
        self._caught_up.set()

    def _take_items(self) -> None:
        while (item := self._source.get()) is not self:
            if isinstance(item, _Mark):
                item.set()
            elif isinstance(item, Feed):  # of another server, which takes items off the same queue
                if item._thread.is_alive():
                    self._source.put(item)
            else:
                self._publish(item)
            self._done()
        self._done()

    def _publish(self, item: object) -> None:
        try:
            event = as_event(item).encode()
        except Exception:  # whatever encoding it can raise, the next item may be in order
            log.exception("an item of an event source is not an event: %.200r", item)
        else:
            for loop, sessions in self.sessions.items():
                loop.call_soon(partial(_feed_all, loop, sessions, event))


def _feed_all(loop: Loop, sessions: set[EventStreamSession], event: bytes) -> None:
    """Owner: encoded once, sent to all, whatever happens to one of them."""
    for session in tuple(sessions):
        loop.survive(session.feed, event)
    loop.totals.feed_events += len(sessions)  # without those that were cut off
