"""The lagging subscriptions of a topic, whose clients have not been sent the whole log."""

from __future__ import annotations

from .subscription import TopicSubscription


class Lagging:
    """Subscriptions by position, to find those whose next entry the log drops.

    Not thread-safe: the caller holds the topic's lock.

    Attributes:
        count: the number of subscriptions.
    """

    __slots__ = ("_at", "count")

    def __init__(self) -> None:
        self.count: int = 0
        self._at: dict[int, set[TopicSubscription]] = {}

    def put(self, subscription: TopicSubscription) -> None:
        """Add a subscription at its position."""
        self._at.setdefault(subscription.position, set()).add(subscription)
        self.count += 1

    def take(self, subscription: TopicSubscription, floor: int) -> None:
        """Remove a subscription, whose position :meth:`move` may have changed to the floor."""
        for position in (subscription.position, floor):
            waiting = self._at.get(position)
            if waiting is not None and subscription in waiting:
                waiting.remove(subscription)
                self.count -= 1
                if not waiting:
                    del self._at[position]
                return

    def by_position(self) -> dict[int, int]:
        """Return the number of subscriptions at each position."""
        return {position: len(waiting) for position, waiting in self._at.items()}

    def passed(self, old_floor: int, floor: int) -> list[int]:
        """Return the positions of subscriptions that the floor has passed."""
        # The smaller set is searched, because the floor may have moved by one or by millions.
        gone = range(old_floor, floor)
        positions = gone if len(gone) < len(self._at) else tuple(self._at)
        return [here for here in positions if here in self._at and here < floor]

    def pop(self, position: int) -> set[TopicSubscription]:
        """Remove and return all subscriptions at a position."""
        waiting = self._at.pop(position)
        self.count -= len(waiting)
        return waiting

    def move(self, position: int, floor: int) -> int:
        """Move all subscriptions at a position to the floor; return their number."""
        waiting = self._at.pop(position)
        moved = len(waiting)
        small, large = sorted((waiting, self._at.get(floor, set())), key=len)
        large |= small
        self._at[floor] = large
        return moved
