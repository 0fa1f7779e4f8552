"""The events that wait for Redis, in order and within bounds."""

from __future__ import annotations

from wsframe.server.topics.redis.outbox import MAX_NUMBERS, Event, Outbox


def event(topic: str) -> Event:
    return Event(topic, 1, last=False, bounds=(1, 1, 1), fields=[b"d", b"x"])


def send(outbox: Outbox, *events: Event) -> None:
    """Send these events, in order."""
    for each in events:
        outbox.put(each)
        outbox.sort()
        outbox.remove(each)


def test_an_event_after_a_rejected_one_follows_a_gap() -> None:
    outbox = Outbox(1000)
    events = [event("news") for _ in range(3)]
    for each in events:
        outbox.put(each)
    outbox.sort()
    outbox.remove_lost(events[0])
    assert outbox.batch() == events[1:]
    assert [(each.before, each.lost) for each in events[1:]] == [(0, 1), (events[1].number, 0)]
    outbox.remove_lost(events[1])
    assert (events[2].before, events[2].lost) == (0, 2)


def test_the_number_of_remembered_topics_is_limited() -> None:
    outbox = Outbox(1000)
    first = [event(f"{number}") for number in range(MAX_NUMBERS + 1)]
    send(outbox, *first)
    newer, oldest = event("1"), event("0")
    send(outbox, newer, oldest)
    assert newer.before == first[1].number
    assert oldest.before == 0
