"""The server's side of an event stream: events, heartbeats, and its subscriptions to topics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from email.utils import formatdate
from itertools import islice
from queue import Queue, SimpleQueue
from random import uniform
from typing import TYPE_CHECKING, Any

from wsframe import CloseCode, ConnectionClosed
from wsframe.fields import encode_response

from ..handoff.queues import wake
from ..handoff.task import BUSY, WAITING
from ..http.request import shorten
from ..sockets.peer import Peer, no_room
from ..topics.encodings import EVENT_STREAM, EventStreamEncoding, StreamOfMany, encode_id
from ..topics.ids import END
from .gzipped import GZIPPED_EVENT_STREAM, HEADER, GzipStream
from .resume import last_event_id
from .subscriber import Subscriber

if TYPE_CHECKING:
    from ..handoff.blocking import BlockingProfile
    from ..handoff.threads import WorkerThread
    from ..http.request import Request
    from ..topics.encodings import Encoding
    from ..topics.registry import Topics
    from ..topics.subscription import TopicSubscription
    from ..topics.topic import Topic


COMMENT = b":\n\n"


def encode_stream_head(headers: Iterable[tuple[str, str]]) -> bytes:
    """The answer that an event stream follows; its end is the end of the connection.

    Proxies are asked to hold nothing back.

    Args:
        headers: of this one.
    """
    return encode_response(
        200,
        [
            *headers,
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", "text/event-stream; charset=utf-8"),
            ("Cache-Control", "no-store, no-transform"),
            ("X-Accel-Buffering", "no"),
            ("Connection", "close"),
        ],
    )


def encode_retry(seconds: float) -> bytes:
    """A block without data, by which a client knows how long to wait before it comes back.

    Each is told another time, so that those who are cut off together do not come back together.
    """
    return f"retry: {round(1000 * seconds * uniform(0.5, 1.5))}\n\n".encode() if seconds else b""


NOWHERE: Mapping[str, str] = {}  # what a new client comes with


def over_error() -> ConnectionClosed:
    """What to raise at a handler that goes on after the end."""
    return ConnectionClosed(CloseCode.ABNORMAL_CLOSURE, "the event stream is over")


class EventStreamSession(Subscriber):
    """The server's side of one event stream, which may have no handler but only a topic.

    Attributes:
        over: set once, when the client has left or the stream was closed; nothing is sent after it.
        encoding: how the events of topics are sent here; the owner sets it.
        request: the one that opened it.
        awaited_queue: the queue that the handler's thread waits for; that thread sets it.
        came_with: where the client was in several topics when it came back; what subscribes sets
            it, and the owner leaves out what the handler has not subscribed to.
    """

    __slots__ = (
        "_complete",
        "_gzip",
        "_opens",
        "_sent",
        "_topic",
        "awaited_queue",
        "came_with",
        "encoding",
        "request",
    )

    over: bool

    def __init__(
        self,
        peer: Peer,
        profile: BlockingProfile,
        topics: Topics,
        request: Request,
        topic: Topic | None,
        *,
        gzip: bool,
    ) -> None:
        super().__init__(peer, profile, topics)
        self.over = False
        self.request = request
        self.awaited_queue: Queue[Any] | SimpleQueue[Any] | None = None
        self.came_with: Mapping[str, str] = NOWHERE
        self._topic = topic
        self._complete = False  # the topics that it was subscribed to have ended
        self._sent = 0  # bytes, when it was last looked
        self._opens = False  # the client is to be told where its subscriptions begin
        self._gzip = GzipStream() if gzip else None
        self.encoding: EventStreamEncoding = GZIPPED_EVENT_STREAM if gzip else EVENT_STREAM

    # Owner ------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Any thread: the path of the request."""
        return self.request.path

    def opening(self) -> bytes:
        """Owner: what stands right behind the head."""
        retry = encode_retry(self.peer.clients.settings.retry)
        if self._gzip is None:
            return retry
        blocks = [HEADER]
        self._gzip.put(retry, blocks.append)
        return b"".join(blocks)

    def start(self, worker: WorkerThread | None = None) -> None:
        """Owner: begin; the head and the opening are queued.

        Args:
            worker: the thread for a handler that keeps it.
        """
        self.begin_heartbeat()
        if self._topic is not None:
            resume = self.resume_from(last_event_id(self.request))
            subscription = self.subscribe_from(self._topic, resume, None, None)
            if subscription.placed:
                subscription.begin()  # the head and the first events are sent in one piece
        self.peer.flush()
        self.shorten_request()

    def shorten_request(self) -> None:
        """Owner: keep no more of a long head than the log needs."""
        shorten(self.request, self.peer.clients.settings.max_kept_head)

    def work_on(self, work: list[Any]) -> None:
        """Do nothing: a stream without a handler has no turns."""

    def finish_turn(self) -> None:
        """Owner: do nothing, likewise."""

    def subscribed(self, subscription: TopicSubscription) -> None:
        """Owner: a subscription begins; where there are several, each id tells of all."""
        several = len(self.subscriptions) > 1 or self.came_with.keys() - {subscription.topic}
        if several and not self.encoding.of_one:
            self.encoding = StreamOfMany(self.topics.places, self.came_with)
            for other in tuple(self.subscriptions):
                if other.begun and other is not subscription:
                    self.encoding.stream_start(other.topic, other.last_id)
                    other.change_encoding(self.encoding)
                    other.advance()
        subscription.change_encoding(self.encoding)

    def open_at(self, topic: str, cursor: str, encoding: Encoding) -> None:
        """Owner: a subscription begins here; those that begin together are told of by one id."""
        opening = encoding.stream_start(topic, cursor)
        if not isinstance(self.encoding, StreamOfMany):
            self.tell(opening)
        elif not self._opens:
            self._opens = True
            self.peer.loop.call_soon(self._open)

    def _open(self) -> None:
        self._opens = False
        if isinstance(self.encoding, StreamOfMany) and not self.over:
            self.tell(self.encoding.here())

    def put(self, block: bytes) -> None:
        """Owner: queue events in one piece."""
        if self._gzip is None:
            self.peer.out.append(block)
        else:
            self._gzip.put_at_once(block, self.peer.out.append)

    def tell(self, notice: bytes) -> None:
        """Owner: send what is no event."""
        if self._gzip is None:
            super().tell(notice)
        elif notice:
            self._gzip.put(notice, self.peer.queue_control)
            self.peer.flush()

    def topic_ended(self, subscription: TopicSubscription) -> None:
        """Owner: nothing more comes of this one; if it was the last, nothing of the stream."""
        super().topic_ended(subscription)
        self._complete = not self.subscriptions
        if self._complete and self.handler_ended:
            self.end_for_good()

    @property
    def handler_ended(self) -> bool:
        """Owner: True if no handler will send anything more."""
        return True

    def too_slow(self, topic: str) -> None:
        """Owner: the client has not taken this topic's events in time; it comes back by itself."""
        self.peer.cut_off("is too slow for its event stream")

    def data_received(self, data: memoryview) -> None:
        """Owner: a client has nothing to say here."""

    def disconnected(self) -> None:
        """Owner: the client has left, or the stream was closed."""
        self._is_over()
        if self.state is WAITING:  # its handler has not begun
            self.end()

    def after_fork(self) -> None:
        """The child of a fork: for a handler that runs on here, the stream is over."""
        self.over = True

    def _is_over(self) -> None:
        self.over = True
        self.leave_topics()
        if self.state is BUSY:
            self.peer.loop.at_next_tick(self._wake_handler)
            self.peer.loop.overdue.watch(self)

    def _wake_handler(self) -> None:
        """Owner: end the handler's wait for an item."""
        queue = self.awaited_queue
        if queue is not None and not wake(queue):
            self.peer.loop.at_next_tick(self._wake_handler)

    def deadline_passed(self) -> None:
        """Owner: send a comment, if nothing has been sent for half of the time that may be so."""
        if self._sent == self.peer.bytes_out and not self.peer.has_unsent:
            self.tell(COMMENT)
        self.begin_heartbeat()

    def begin_heartbeat(self) -> None:
        """Owner: check after half of the heartbeat interval whether anything was sent."""
        self._sent = self.peer.bytes_out
        heartbeat = self.peer.clients.settings.heartbeat
        if heartbeat and not self.peer.closed:
            self.peer.due_in(heartbeat / 2)

    def shut_down(self) -> None:
        """Owner: the server stops."""
        self.finish()

    def finish(self, *last: bytes) -> None:
        """Owner: end the stream, after what was sent before and these last words."""
        self._is_over()
        if self._gzip is None:
            self.peer.finish(*last)
        else:
            self._gzip.end(b"".join(last), self.peer.close_send)
            self.peer.finish()

    def end_for_good(self) -> None:
        """Owner: end the stream, after what was sent before, and have no client come back."""
        self.finish(encode_id(END))

    # Any thread -------------------------------------------------------------------------------

    def resume_from(self, last_id: str) -> str | Mapping[str, str]:
        """Any thread: return the position that a last event id stands for.

        Returns:
            The id itself, for a stream of one topic; or the ids in each of several topics.
        """
        found = self.topics.places.find(last_id) if last_id.startswith("?") else None
        if found:
            # No more than there may be subscriptions, because a client can make up any number.
            most = self.peer.clients.settings.max_subscriptions
            self.came_with = dict(islice(found.items(), most))
        return last_id if found is None else found

    def subscribe_from(
        self,
        topic: str | Topic,
        resume: str | Mapping[str, str],
        after: str | None,
        member: str | None,
    ) -> TopicSubscription:
        """Any thread: subscribe from the client's position; see :meth:`EventStream.subscribe`.

        Args:
            topic: the topic, or its name.
            resume: the position of a client that reconnects, from :meth:`resume_from`.
            after: the position for a new client, or one whose position is unknown.
            member: the name of the subscriber.
        """
        name = topic if isinstance(topic, str) else topic.name
        seen = resume if isinstance(resume, str) else resume.get(name)
        return self.subscribe(topic, self.encoding, seen or after, after, member)

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
        """Any thread: have the owner end the stream, after what was sent before."""
        self.over = True
        self.peer.loop.call_soon(self.end_for_good if final else self.finish)
