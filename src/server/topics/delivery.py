"""The delivery of a topic's events to the clients of one loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..pure_rounds import IncompleteBlock
from .encodings import Encoding
from .entry import Entry
from .state import TopicState
from .subscription import DeliveryTotals, EventLoop, TopicSubscription


class Delivery:
    """The subscriptions to one topic on one loop; only the owner uses it, except as stated.

    Subscriptions that are caught up share one position, and receive the same bytes object.

    Attributes:
        loop: the loop of the subscriptions.
        position: the position of the last entry that the loop has taken from the log; written
            under the topic's lock.
        offset: the weight of all entries up to the position.
        base: the position after which entries are kept, for subscriptions that are caught up or
            have not begun; the topic's lock protects the attribute.
        new: subscriptions that have not begun; the topic's lock protects the attribute.
        subscriptions: the number of subscriptions; the topic's lock protects the attribute.
    """

    __slots__ = (
        "_batch",
        "_caught_up",
        "_fan_out",
        "_joining",
        "_piece",
        "_pieces",
        "_scheduled",
        "_topic",
        "_totals",
        "base",
        "loop",
        "new",
        "offset",
        "position",
        "subscriptions",
    )

    def __init__(self, topic: TopicState, loop: EventLoop, totals: DeliveryTotals) -> None:
        self.loop: EventLoop = loop
        self.position: int = topic.log.head
        self.base: int = self.position
        self.offset: int = topic.log.offset
        self.new: set[TopicSubscription] = set()
        self.subscriptions: int = 0
        self._topic = topic
        self._batch = topic.sizes.fanout_batch
        self._piece, self._pieces = topic.sizes.piece, topic.sizes.pieces
        self._totals = totals
        self._caught_up: dict[Encoding, set[TopicSubscription]] = {}
        # The subscriptions that are ahead of the loop's position.
        self._joining: list[TopicSubscription] = []
        # True while a call of _deliver is scheduled; the topic's lock protects it.
        self._scheduled = False
        self._fan_out: Iterator[bool] | None = None

    def schedule(self) -> None:
        """Any thread, under the topic's lock: schedule the delivery of new entries."""
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._deliver)

    def encodings(self) -> list[Encoding]:
        """Any thread: return the encodings of the subscriptions that are caught up."""
        return list(self._caught_up)

    def expect(self, subscription: TopicSubscription) -> None:
        """Any thread, under the topic's lock: keep the entries after a subscription's position."""
        self.new.add(subscription)
        self.base = min(self.base, subscription.position)

    def has_begun(self, subscription: TopicSubscription) -> None:
        """Loop owner: stop keeping entries for a new subscription."""
        with self._topic.lock:
            self.new.discard(subscription)
            self._raise_base()

    def forget(self, subscription: TopicSubscription) -> None:
        """Loop owner: remove a subscription."""
        if subscription.caught_up:
            self.leave(subscription)
        self.has_begun(subscription)

    def advance(self, subscription: TopicSubscription) -> None:
        """Loop owner: send as many of a subscription's next entries as the socket accepts.

        After a number of pieces, the loop serves other clients.
        """
        peer = subscription.peer
        timing = self._topic.timing
        until = timing.clock() + timing.delivery_slice
        for _ in range(self._pieces):
            if peer.has_unsent or subscription.caught_up:
                break
            if not self._send_piece(subscription, self.position):
                return
            if timing.clock() > until:
                self.loop.call_soon(subscription.advance)
                return
        else:
            self.loop.call_soon(subscription.advance)
            return
        if peer.has_unsent:
            if subscription.caught_up:
                self.start_lagging(subscription)
            peer.notify_when_sent = True

    def finish(self, subscription: TopicSubscription) -> None:
        """Loop owner: send as many of the published entries as the socket accepts."""
        if subscription.caught_up:
            self.start_lagging(subscription)
        while not subscription.peer.has_unsent:
            if not self._send_piece(subscription, self._topic.log.head):
                return

    def leave(self, subscription: TopicSubscription) -> None:
        """Loop owner: remove a subscription from the caught-up ones."""
        subscription.caught_up = False
        members = self._caught_up[subscription.encoding]
        members.remove(subscription)
        if not members:
            del self._caught_up[subscription.encoding]

    def start_lagging(self, subscription: TopicSubscription) -> None:
        """Loop owner: change a subscription from caught up to lagging."""
        self.leave(subscription)
        with self._topic.lock:
            if not subscription.removed:
                self._topic.mark_lagging(subscription)

    def _send_piece(self, subscription: TopicSubscription, to: int) -> bool:
        """Send the next entries up to a position; return False if nothing was sent."""
        if subscription.over or subscription.peer.closed:
            return False
        piece = self._read(subscription, to)
        if piece is None:
            return False
        entries, notice = piece
        subscription.receiver.send_notice(notice)
        if entries:
            encoding = subscription.encoding
            new = any(encoding not in entry.encoded for entry in entries)
            block = encoding.block(self._topic.name, entries)
            if new:
                with self._topic.lock:
                    self._topic.count_encodings(entries)
            self._send(subscription, block, entries)
        return True

    def _read(self, subscription: TopicSubscription, to: int) -> tuple[list[Entry], bytes] | None:
        """Return the next entries of a subscription and the notice before them; None if empty."""
        topic, notice = self._topic, b""
        with topic.lock:
            log = topic.log
            if subscription.removed:
                return None
            if subscription.position > to:
                # The scheduled delivery will reach the subscription.
                self._joining.append(subscription)
                return None
            topic.unmark_lagging(subscription)
            position = max(subscription.position, log.floor)
            subscription.dropped += position - subscription.position
            missed = subscription.missed or position > subscription.position
            subscription.missed = False
            entries, subscription.position = log.after(position, to, self._piece)
            replaced = subscription.position - position - len(entries)
            if replaced:
                topic.count_lost(replaced)
                subscription.dropped += replaced
            if missed:
                oldest = log.oldest()
                notice = subscription.encoding.gap(
                    topic.name, topic.cursor(position), "" if oldest is None else oldest.id or ""
                )
            if subscription.position == self.position:
                subscription.caught_up = True
                self._caught_up.setdefault(subscription.encoding, set()).add(subscription)
                topic.trim()  # drop the entries that were kept for this subscription
            else:
                topic.mark_lagging(subscription)
        return (entries, notice) if entries or notice else None

    def _deliver(self) -> None:
        """Loop owner: send new entries to a batch of clients; at most one call is scheduled."""
        try:
            if self._fan_out is None:
                self._fan_out = self._send_to_all()
            more = next(self._fan_out, False)
        except Exception as error:
            self.loop.report_error(error)
            self._abandon()
            more = False
        if more:
            self.loop.call_soon(self._deliver)
            return
        self._fan_out = None
        joining, self._joining = self._joining, []
        with self._topic.lock:
            self._raise_base()
            self._scheduled = False
            if self.subscriptions and self._topic.log.head > self.position:
                self.schedule()
        for subscription in joining:
            self.loop.call_safely(subscription.advance)

    def _raise_base(self) -> None:
        """Under the topic's lock: let the topic drop the entries that this loop no longer needs.

        While new entries are being sent, or a new subscription has not begun, do nothing.
        """
        if self._fan_out is None and not self.new:
            self.base = self.position
            self._topic.trim()

    def _send_to_all(self) -> Iterator[bool]:
        """Send new entries to all caught-up subscriptions; yield after each batch."""
        before = self.position
        with self._topic.lock:
            log = self._topic.log
            self.position, self.offset = log.head, log.offset
            self._topic.notify_taken()
            entries, _ = log.after(before, log.head)
            overtaken = log.floor > before
        if overtaken:
            yield from self._overtake_all(before)
            return
        # A call without new entries means that a closed topic has refused events.
        assert entries or not self._caught_up
        replaced = self.position - before - len(entries)
        groups = [tuple(members) for members in self._caught_up.values()]
        since = lost = 0
        for members in groups:
            for first in range(0, len(members), self._batch):
                some = members[first : first + self._batch]
                lost += replaced * self._send_to_some(some, entries, before, replaced)
                since += len(some)
                if since >= self._batch:
                    since = 0
                    yield True
        with self._topic.lock:
            self._topic.count_encodings(entries)
            if lost:
                self._topic.count_lost(lost)

    def _send_to_some(
        self,
        members: Sequence[TopicSubscription],
        entries: Sequence[Entry],
        before: int,
        replaced: int,
    ) -> int:
        """Send new entries to caught-up subscriptions with the same encoding.

        Args:
            members: the subscriptions. A subscription that has already advanced is skipped.
            entries: the entries.
            before: the position before the entries.
            replaced: the number of entries that the log has replaced in between.

        Returns:
            The number of subscriptions that were sent the entries.
        """
        encoding = members[0].encoding
        block = encoding.block(self._topic.name, entries)
        incomplete: Sequence[IncompleteBlock]
        due = [one for one in members if one.caught_up and one.position == before and not one.over]
        position = self.position
        for subscription in due:
            subscription.position = position
        if replaced:
            for subscription in due:
                subscription.dropped += replaced
        if block and encoding.is_shared and not entries[-1].last:
            peers = [subscription.peer for subscription in due]
            incomplete = self.loop.send_block(peers, block, len(entries))
            self._totals.topic_events += len(entries) * (len(due) - len(incomplete))
        else:
            incomplete = [(number, None, 0) for number in range(len(due))]
        count = len(due)
        for number, items, sent in incomplete:
            subscription = due[number]
            peer = subscription.peer
            if items is None and peer.has_unsent:  # the client receives the entries later
                subscription.position = before
                subscription.dropped -= replaced
                count -= 1
            else:
                try:
                    if items is None:
                        self._send(subscription, block, entries)
                    else:
                        self._totals.topic_events += len(entries)
                        peer.sent_partly(items, sent)
                except Exception as error:
                    self.loop.report_error(error, peer)
            if peer.has_unsent and subscription.caught_up:
                self.start_lagging(subscription)
                peer.notify_when_sent = True
        return count

    def _overtake_all(self, before: int) -> Iterator[bool]:
        """Apply the policy to the caught-up subscriptions, which the floor has passed.

        The loop was too slow to send the entries. The generator yields after each batch.
        """
        members = [one for group in self._caught_up.values() for one in group]
        batch = self._batch
        for number, subscription in enumerate(members, 1):
            if subscription.caught_up and subscription.position == before:
                self.leave(subscription)
                with self._topic.lock:
                    if not subscription.removed:
                        self._topic.overtake(subscription)
            if number % batch == 0:
                yield True

    def _send(
        self, subscription: TopicSubscription, block: bytes, entries: Sequence[Entry]
    ) -> None:
        """Queue a block for a client; the bytes object is shared by all clients of a kind."""
        peer, newest = subscription.peer, entries[-1]
        if block:
            events = len(entries) - newest.last
            subscription.receiver.put(block)
            peer.frames_out += events - 1
            peer.flush()
            self._totals.topic_events += events
            if subscription.encoding.is_per_client:
                subscription.encoding.sent(self._topic.name, entries)
        if newest.last:
            subscription.receiver.topic_ended(subscription)

    def _abandon(self) -> None:
        """Abort all caught-up subscribers after an internal error, so that no loss is silent."""
        for members in tuple(self._caught_up.values()):
            for subscription in tuple(members):
                self.loop.call_safely(subscription.peer.abort)
