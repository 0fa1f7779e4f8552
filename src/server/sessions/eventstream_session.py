"""The server's side of an event stream: events, heartbeats, and subscriptions to topics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from email.utils import formatdate
from queue import Queue, SimpleQueue
from random import uniform
from typing import TYPE_CHECKING, Any

from wsframe import CloseCode, ConnectionClosed
from wsframe.headers import encode_response

from ..handoff.queues import wake
from ..handoff.task import BUSY, WAITING
from ..headers import layered
from ..heartbeats import encode_heartbeat
from ..http.request import shorten
from ..sockets.output import no_room
from ..sockets.peer import Peer
from ..topics.encodings import EVENT_STREAM, EventStreamEncoding, encode_end
from ..topics.stream_receiver import NO_POSITIONS, StreamReceiver
from .gzipped import GZIPPED_EVENT_STREAM, HEADER, GzipStream
from .resume import last_event_id
from .subscriber import Subscriber

if TYPE_CHECKING:
    from ..handoff.blocking import BlockingProfile
    from ..http.request import Request
    from ..topics.registry import Topics
    from ..topics.subscription import TopicSubscription
    from ..topics.topic import Topic


# The headers of every event stream. X-Accel-Buffering asks proxies not to buffer the events.
STREAM_HEADERS = (
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-store, no-transform"),
    ("X-Accel-Buffering", "no"),
)


def encode_stream_head(*levels: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of the answer; the body ends with the connection.

    Args:
        *levels: further headers, as for :func:`layered`.
    """
    date, close = ("Date", formatdate(usegmt=True)), ("Connection", "close")
    return encode_response(200, layered((*STREAM_HEADERS, date, close), *levels))


def encode_retry(seconds: float) -> bytes:
    """Return the block with the client's reconnection delay; an empty block for 0 seconds.

    The delay is random for each client, so that the clients do not all reconnect at once.
    """
    return f"retry: {round(1000 * seconds * uniform(0.5, 1.5))}\n\n".encode() if seconds else b""


def over_error() -> ConnectionClosed:
    """Return the error for a handler that uses an ended stream."""
    return ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "the event stream is over")


class EventStreamSession(StreamReceiver, Subscriber):
    """The server's side of one event stream, which has a handler or only a topic.

    Attributes:
        over: True once the client has disconnected or the stream was closed. Then no event is sent.
        request: the request that opened the stream.
        awaited_queue: the queue for which the handler's thread waits; that thread sets the
            attribute.
    """

    __slots__ = (
        "_complete",
        "_gzip",
        "_heartbeat",
        "_sent",
        "awaited_queue",
        "encoding",
        "opening_scheduled",
        "request",
        "resumed",
    )

    over: bool

    def __init__(
        self,
        peer: Peer,
        profile: BlockingProfile,
        topics: Topics,
        request: Request,
        *,
        gzip: bool,
        heartbeat: bytes | None = None,
    ) -> None:
        super().__init__(peer, profile, topics)
        self.over = False
        self.request: Request = request
        self.awaited_queue: Queue[Any] | SimpleQueue[Any] | None = None
        self.resumed: Mapping[str, str] = NO_POSITIONS
        self.opening_scheduled: bool = False
        self._heartbeat = heartbeat  # None for that of the settings
        self._complete = False  # True once all topics of the stream are closed
        self._sent = 0  # the number of bytes sent until the last heartbeat check
        self._gzip = GzipStream() if gzip else None
        self.encoding: EventStreamEncoding = GZIPPED_EVENT_STREAM if gzip else EVENT_STREAM

    # Loop owner -------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Any thread: the path of the request."""
        return self.request.path

    def opening(self) -> bytes:
        """Loop owner: return the first bytes of the body."""
        retry = encode_retry(self.peer.clients.settings.retry)
        if self._gzip is None:
            return retry
        blocks = [HEADER]
        self._gzip.put(retry, blocks.append)
        return b"".join(blocks)

    def open(self, topic: Topic | None = None) -> None:
        """Loop owner, once: start without a handler, after the head and the opening were queued.

        Args:
            topic: the topic of the stream's first subscription, if any.
        """
        self.begin_heartbeat()
        if topic is not None:
            resume = self.resume_from(last_event_id(self.request))
            subscription = self.subscribe_from(topic, resume, None, None)
            if subscription.placed:
                # Before the flush, so that the head and the first events are sent together.
                subscription.begin()
        self.peer.flush()
        self.shorten_request()

    def shorten_request(self) -> None:
        """Loop owner: reduce a long request head to the data for the log."""
        shorten(self.request, self.peer.clients.settings.max_kept_head)

    def work_on(self, work: list[Any]) -> None:
        """The turn's thread: do nothing, because a stream without a handler has no turns."""

    def finish_turn(self) -> None:
        """Loop owner: do nothing, because a stream without a handler has no turns."""

    def put(self, block: bytes) -> None:
        """Loop owner: queue several encoded events as one block."""
        if self._gzip is None:
            self.peer.out.append(block)
        else:
            self._gzip.put_fast(block, self.peer.out.append)

    def send_notice(self, notice: bytes) -> None:
        """Loop owner: send a notice, which does not count as an event."""
        if self._gzip is None:
            super().send_notice(notice)
        elif notice:
            self._gzip.put(notice, self.peer.queue_control)
            self.peer.flush()

    def topic_ended(self, subscription: TopicSubscription) -> None:
        """Loop owner: end a subscription; end the stream after its last subscription."""
        super().topic_ended(subscription)
        self._complete = not self.subscriptions
        if self._complete and self.handler_ended:
            self.end_for_good()

    @property
    def handler_ended(self) -> bool:
        """Loop owner: True if the stream has no handler that will send more events."""
        return True

    def too_slow(self, topic: str) -> None:
        """Loop owner: disconnect a client that is too slow; the client reconnects automatically."""
        self.peer.cut_off("too slow for its event stream")

    def data_received(self, data: memoryview) -> None:
        """Loop owner: ignore received data, because a connection serves one request."""

    def disconnected(self) -> None:
        """Loop owner: end the stream, because its socket has ended."""
        self._finish_sending()
        if self.state is WAITING:  # the handler has not started
            self.end()

    def after_fork(self) -> None:
        """The child of a fork: end the stream for a handler that continues in the child."""
        self.over = True

    def _finish_sending(self) -> None:
        """Loop owner: end the subscriptions, and wake a handler that waits for an item."""
        self.over = True
        self.leave_topics()
        if self.state is BUSY:
            self.peer.loop.at_next_tick(self._wake_handler)
            self.peer.loop.overdue.watch(self)

    def _wake_handler(self) -> None:
        """Loop owner: wake a handler that waits for an item."""
        queue = self.awaited_queue
        if queue is not None and not wake(queue):
            self.peer.loop.at_next_tick(self._wake_handler)

    def deadline_passed(self) -> None:
        """Loop owner: send a heartbeat if nothing was sent for half of the heartbeat interval."""
        if self._sent == self.peer.bytes_out and not self.peer.has_unsent:
            event = self.peer.clients.settings.heartbeat_event
            self.send_notice(self._heartbeat or encode_heartbeat(event))
        self.begin_heartbeat()

    def begin_heartbeat(self) -> None:
        """Loop owner: schedule the next heartbeat check, after half of the heartbeat interval."""
        self._sent = self.peer.bytes_out
        heartbeat = self.peer.clients.settings.heartbeat
        if heartbeat and not self.peer.closed:
            self.peer.due_in(heartbeat / 2)

    def shut_down(self) -> None:
        """Loop owner: end the stream, because the server stops."""
        self.finish()

    def close_for_good(self, code: int, reason: str) -> None:
        """Loop owner: end the stream for good, because the application has closed its identity."""
        self.request_close(final=True)

    def finish(self, *last: bytes) -> None:
        """Loop owner: end the stream after the queued events and the argument's bytes."""
        self._finish_sending()
        if self._gzip is None:
            self.peer.finish(*last)
        else:
            self._gzip.end(b"".join(last), self.peer.close_send)
            self.peer.finish()

    def end_for_good(self) -> None:
        """Loop owner: end the stream for good: with the id that stops clients from reconnecting."""
        self.finish(encode_end())

    # Any thread -------------------------------------------------------------------------------

    def send(self, event: bytes, timeout: float | None = None) -> None:
        """Any thread: queue an event."""
        if timeout is not None and not self.peer.wait_for_room(timeout):
            raise no_room(timeout)
        if self.over:
            raise over_error()
        if self._gzip is not None:
            self.peer.schedule_flush(
                self._gzip.put(event, self.peer.out.append), wait=timeout is None
            )
        elif timeout is None:
            self.peer.send(event)
        else:
            self.peer.out.append(event)
            self.peer.schedule_flush(len(event), wait=False)

    def request_close(self, *, final: bool = False) -> None:
        """Any thread: make the owner end the stream, after the events sent before."""
        self.over = True
        self.peer.loop.call_soon(self.end_for_good if final else self.finish)
