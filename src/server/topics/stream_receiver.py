"""The subscriptions of one event stream, with one id for its position in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING

from .encodings import EventStreamEncoding, StreamOfMany
from .receiving import TopicReceiver
from .subscription import TopicSubscription

if TYPE_CHECKING:
    from .encodings import Encoding
    from .topic import Topic

NO_POSITIONS: Mapping[str, str] = {}  # the positions with which a new client begins


class StreamReceiver(TopicReceiver):
    """The base of receivers that are event streams.

    Attributes:
        encoding: the encoding for the events of topics; only the owner changes it.
        over: True once the client has disconnected or the stream was closed. Then no event is sent.
        resumed: the positions in several topics with which the client has reconnected. The
            subscribing thread sets it, and the owner removes topics without a subscription.
        opening_scheduled: True if a notice of the positions will be sent.
    """

    __slots__ = ()  # subclasses have the attributes, because they have another base with slots

    encoding: EventStreamEncoding
    over: bool
    resumed: Mapping[str, str]
    opening_scheduled: bool

    # Loop owner -------------------------------------------------------------------------------

    def subscribed(self, subscription: TopicSubscription) -> None:
        """Loop owner: with several subscriptions, use ids with the positions in all topics."""
        several = len(self.subscriptions) > 1 or self.resumed.keys() - {subscription.topic}
        if several and not self.encoding.is_per_client:
            self.encoding = StreamOfMany(self.topics.places, self.resumed)  # type: ignore[misc]
            for other in tuple(self.subscriptions):
                if other.begun and other is not subscription:
                    self.encoding.stream_start(other.topic, other.last_id)
                    other.change_encoding(self.encoding)
                    other.advance()
        subscription.change_encoding(self.encoding)

    def open_at(self, topic: str, cursor: str, encoding: Encoding) -> None:
        """Loop owner: send a subscription's position; several that start together share one id."""
        opening = encoding.stream_start(topic, cursor)
        if not isinstance(self.encoding, StreamOfMany):
            self.send_notice(opening)
        elif not self.opening_scheduled:
            self.opening_scheduled = True  # type: ignore[misc]
            self.loop.call_soon(self._open)

    def _open(self) -> None:
        self.opening_scheduled = False  # type: ignore[misc]
        if isinstance(self.encoding, StreamOfMany) and not self.over:
            self.send_notice(self.encoding.here())

    # Any thread -------------------------------------------------------------------------------

    def resume_from(self, last_id: str) -> str | Mapping[str, str]:
        """Any thread: return the position for the last event id of a client.

        Returns:
            The id itself, for a stream of one topic; or the ids in each of several topics.
        """
        positions = self.topics.places.find(last_id) if last_id.startswith("?") else None
        if positions:
            # The number of positions is limited to that of subscriptions, because a client can send
            # any id.
            most = self.max_subscriptions
            self.resumed = dict(islice(positions.items(), most))  # type: ignore[misc]
        return last_id if positions is None else positions

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
