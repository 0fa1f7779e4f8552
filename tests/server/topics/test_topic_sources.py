"""Sources of topics that block, end or fail, while servers start and stop."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import threading
from collections.abc import Iterator
from queue import Full, LifoQueue, PriorityQueue, Queue, SimpleQueue
from typing import Any

import pytest

from tests.support.clients import Clients
from tests.support.inspection import topics_of
from tests.support.log import ServerLog
from tests.support.recording import RecordingTopic, data_of, numbers
from tests.support.redis_server import RedisServer
from tests.support.serving import Serve
from tests.support.topics import log_of
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, BrokerUnavailable, Topic
from wsframe.server.timing import Timing
from wsframe.server.topics.entry import Entry
from wsframe.server.topics.receipts import Fate, Receipt
from wsframe.server.topics.redis.streams import RedisStreams
from wsframe.server.topics.source_threads import WINDOW, IterableThread, QueueThread


class Items:
    """An iterable whose items the test gives, and that reports each request."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self._items: Queue[object] = Queue()

    def give(self, item: object) -> None:
        """Give the waiting thread an item, or an exception."""
        self._items.put(item)

    def wait_until_asked(self) -> None:
        """Wait until a thread requests an item."""
        assert self.asked.acquire(timeout=TIMEOUT)

    def __iter__(self) -> Iterator[object]:
        while True:
            self.asked.release()
            item = self._items.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                return
            yield item


def fed() -> tuple[App, Topic, Items]:
    """Return a topic that is fed from an iterable."""
    app, items = App(), Items()
    topic = app.topic("news")
    topic.feed(items)
    return app, topic, items


def published(topic: Topic, count: int) -> None:
    wait_until(lambda: topic.stats().published == count, f"there are {count} events")


def test_a_blocking_source_continues_with_the_next_server(serve: Serve, log: ServerLog) -> None:
    app, topic, items = fed()
    server = serve(app)
    items.wait_until_asked()
    server.stop()
    log.expect("event source thread of the topic", logging.WARNING)
    server = serve(app)
    assert server.stats().threads
    items.give("1")
    items.wait_until_asked()
    published(topic, 1)
    items.give(None)
    wait_until(lambda: not topics_of(app).sources.running(), "the thread has ended")


def test_a_source_thread_that_ends_while_the_next_server_starts_is_replaced() -> None:
    """It has already seen that it must stop."""
    _, topic, items = fed()
    thread = IterableThread(log_of(topic), Timing(), items)
    thread.start()
    items.wait_until_asked()
    seen, go_on = threading.Event(), threading.Event()
    is_unwanted = thread.is_unwanted

    def slow() -> bool:
        unwanted = is_unwanted()
        if unwanted:
            seen.set()
            assert go_on.wait(TIMEOUT)
        return unwanted

    thread.is_unwanted = slow  # type: ignore[method-assign]
    stopping = threading.Thread(target=thread.stop)
    stopping.start()
    wait_until(lambda: thread.stopping, "the thread must stop")
    items.give("1")
    assert seen.wait(TIMEOUT)
    stopping.join()
    thread.start()
    go_on.set()
    items.wait_until_asked()
    items.give("2")
    published(topic, 2)
    items.give(None)
    wait_until(lambda: not thread.running, "the thread has ended")


def test_a_source_that_ends_or_fails_has_no_thread(serve: Serve, log: ServerLog) -> None:
    for last in (None, RuntimeError("the source is broken")):
        app, topic, items = fed()
        for _ in range(2):
            server = serve(app)
            items.give("1")
            items.give(last)
            if last is not None:
                log.expect("event source of the topic 'news' failed")
            published(topic, 1)
            wait_until(lambda: not topics_of(app).sources.running(), "the thread has ended")  # noqa: B023
            server.stop()
            last = None


def test_closing_a_topic_stops_its_iterable(serve: Serve, log: ServerLog) -> None:
    app, topic, items = fed()
    topic.close()
    serve(app)
    items.give("1")
    log.expect("dropping item from event source: the topic 'news' is closed", logging.WARNING)
    wait_until(lambda: not topics_of(app).sources.running(), "the thread has ended")


def test_a_closed_topic_still_takes_items_from_its_queue(serve: Serve, log: ServerLog) -> None:
    """The thread that fills the queue must not wait forever."""
    app, source = App(), Queue[str](1)
    topic = app.topic("news")
    topic.feed(source)
    topic.close()
    serve(app)
    for number in range(10):
        source.put(str(number), timeout=TIMEOUT)
    source.join()
    log.expect("dropping item from event source: the topic 'news' is closed", logging.WARNING)


def test_a_failing_queue_does_not_delay_the_stop(serve: Serve, log: ServerLog) -> None:
    class Broken(Queue[Any]):
        def get(self, *arguments: Any, **options: Any) -> Any:
            super().get(*arguments, **options)
            raise OSError("the queue is broken")

    app, source = App(), Broken()
    app.topic("news").feed(source)
    server = serve(app)
    source.put("x")
    log.expect("event source of the topic 'news' failed")
    wait_until(lambda: not topics_of(app).sources.running(), "the thread has ended")
    server.stop()
    assert source.empty()


def test_a_queue_continues_with_the_next_server(serve: Serve, clients: Clients) -> None:
    app, source = App(), Queue[str]()
    topic = app.topic("news")
    topic.feed(source)
    app.sse("/news", source=topic)
    for number in range(3):
        server = serve(app)
        stream = clients.stream(server, "/news")
        wait_until(lambda: topic.stats().subscribers, "the client is subscribed")
        source.put(str(number))
        assert stream.expect(1) == [str(number)]
        stream.close()
        server.stop()
    assert source.empty()


class Blocks(dict[str, str]):
    """An item whose encoding takes as long as the test wants."""

    def __init__(self, begun: threading.Event, go_on: threading.Event) -> None:
        super().__init__(a="b")
        self._begun, self._go_on = begun, go_on

    def items(self) -> Any:
        self._begun.set()
        assert self._go_on.wait(TIMEOUT)
        return super().items()


def test_an_abandoned_queue_thread_continues() -> None:
    """The queue still has an item that was meant to end it for the last server."""
    source: Queue[Any] = Queue()
    topic = App().topic("news")
    taken, go_on = threading.Event(), threading.Event()
    thread = QueueThread(log_of(topic), Timing(source_stop_timeout=0.1), source)
    thread.start()
    source.put(Blocks(taken, go_on))
    assert taken.wait(TIMEOUT)
    stopping = threading.Thread(target=thread.stop)
    stopping.start()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()
    thread.start()
    go_on.set()
    source.put("2")
    published(topic, 2)
    thread.stop()
    wait_until(lambda: not thread.running, "it has ended")


def test_the_items_of_a_queue_are_published_before_the_shutdown() -> None:
    taken, go_on = threading.Event(), threading.Event()

    class Slow(Queue[Any]):
        def get(self, *arguments: Any, **options: Any) -> Any:
            item = super().get(*arguments, **options)
            taken.set()
            assert go_on.wait(TIMEOUT)
            return item

    source, topic = Slow(), App().topic("news")
    thread = QueueThread(log_of(topic), Timing(), source)
    thread.start()
    source.put("1")
    assert taken.wait(TIMEOUT)
    thread.catch_up(0.0)  # takes no longer
    assert topic.stats().published == 0
    waiting = threading.Timer(0.1, go_on.set)
    waiting.start()
    thread.catch_up(TIMEOUT)
    assert topic.stats().published == 1
    waiting.join()
    thread.stop()


# The default of CPython 3.14, a fork server, would leave a process and its pipes open.
PROCESSES = multiprocessing.get_context("fork" if hasattr(os, "fork") else None)


@pytest.mark.parametrize("kind", [asyncio.Queue, PROCESSES.Queue])
def test_queues_that_are_not_for_threads_are_rejected(kind: Any) -> None:
    source = kind()
    with pytest.raises(TypeError, match="invalid source"):
        App().topic("news").feed(source)
    if kind is not asyncio.Queue:
        source.close()
        source.join_thread()


@pytest.mark.parametrize("kind", [Queue, PriorityQueue, LifoQueue, SimpleQueue])
def test_every_kind_of_queue_feeds_a_topic_and_stops(kind: Any, serve: Serve) -> None:
    app, source = App(), kind()
    topic = app.topic("news")
    topic.feed(source)
    server = serve(app)
    for item in ("a", "b", "c"):
        source.put(item)
    published(topic, 3)
    server.stop()
    wait_until(lambda: not topics_of(app).sources.running(), "the thread has ended")
    assert source.empty()


def test_a_full_queue_does_not_delay_the_stop(serve: Serve) -> None:
    """Neither while its items are published nor while one of them never returns."""
    app, source = App(), Queue[str](1)
    topic = app.topic("news")
    topic.feed(source)
    server = serve(app)
    filled, stop = threading.Event(), threading.Event()

    def fill() -> None:
        while not stop.is_set():
            try:
                source.put("x", timeout=0.01)
            except Full:
                filled.set()

    filling = threading.Thread(target=fill)
    filling.start()
    server.stop()
    assert filled.wait(TIMEOUT)  # no thread takes items any more
    stop.set()
    filling.join()
    assert source.full()


@pytest.mark.slow
def test_a_queue_keeps_items_that_redis_has_not_acknowledged(
    redis_server: RedisServer, others: RedisStreams, serve: Serve, log: ServerLog
) -> None:
    app, source = App(redis=redis_server.url), Queue[str]()
    topic = app.topic("news")
    topic.feed(source)
    there = RecordingTopic(others).follow()
    server = serve(app)
    source.put("first")
    there.expect("first")
    source.join()
    redis_server.kill()
    for item in numbers(1000):
        source.put(item)
    wait_until(lambda: source.qsize() <= 1000 - WINDOW, "a part of the items is taken")
    server.stop()
    assert source.qsize() == 1000 - WINDOW
    log.expect(f"Redis has not acknowledged {WINDOW} items", logging.WARNING)
    redis_server.start()
    server = serve(app)
    there.expect("first", *numbers(1000))
    source.join()
    server.stop()


def test_an_iterable_waits_for_redis(
    redis_server: RedisServer, others: RedisStreams, serve: Serve
) -> None:
    app = App(redis=redis_server.url)
    items = iter(numbers(100))
    app.topic("news").feed(items)
    there = RecordingTopic(others).follow()
    redis_server.kill()
    server = serve(app)
    shared = topics_of(app).shared
    assert isinstance(shared, RedisStreams)
    wait_until(lambda: shared.connection.unavailable, "the outage is noticed")
    assert next(items) == "1"  # one item is taken
    redis_server.start()
    there.expect("0", *numbers(100)[2:])
    server.stop()


def test_items_of_a_topic_that_redis_rejects_wait_in_order(
    redis_server: RedisServer, others: RedisStreams, serve: Serve, log: ServerLog
) -> None:
    app, source = App(redis=redis_server.url), Queue[Any]()
    app.topic("news").feed(source)
    with redis_server.client() as client:
        client.set("wsframe:{news}", "taken")
        server = serve(app)
        for item in numbers(20):
            source.put(item)
        log.expect("event source of the topic 'news' waits: ", logging.WARNING)
        client.delete("wsframe:{news}")
    source.join()
    there = RecordingTopic(others).follow()
    wait_until(
        lambda: data_of(there.entries)[-20:] == numbers(20), "the last items have arrived in order"
    )
    app.flush()
    server.stop()
    log.records.clear()


class ManualTopic:
    """A topic whose receipts the test settles.

    Attributes:
        room: the number of further events that it accepts.
        submitted: the accepted events, with their receipts.
        rejected: the events without room.
    """

    name = "news"

    def __init__(self, room: int) -> None:
        self.room = room
        self.submitted: list[tuple[object, Receipt]] = []
        self.rejected: list[object] = []

    def submit(self, entry: Entry, receipt: Receipt | None = None) -> None:
        assert receipt is not None
        if not self.room:
            self.rejected.append(entry.data)
            raise BrokerUnavailable("no room")
        self.room -= 1
        self.submitted.append((entry.data, receipt))


def test_rejected_items_are_published_again_in_order_after_all_replies(log: ServerLog) -> None:
    topic, source = ManualTopic(room=2), Queue[str]()
    thread = QueueThread(topic, Timing(source_poll_interval=0.005), source)
    for item in ("1", "2", "3"):
        source.put(item)
    thread.start()
    wait_until(lambda: topic.rejected, "the third item is rejected")
    (_, first), (_, second) = topic.submitted
    first.settle(Fate.REFUSED)
    rejected = len(topic.rejected)
    wait_until(lambda: len(topic.rejected) > rejected + 2, "the third item is tried again")
    assert set(topic.rejected) == {"3"}  # the second may still be accepted
    second.settle(Fate.REFUSED)
    wait_until(lambda: topic.rejected[-1] == "1", "the first item is tried again")
    topic.room = 3
    wait_until(lambda: len(topic.submitted) == 5, "the items are published again")
    assert [data for data, _ in topic.submitted] == ["1", "2", "1", "2", "3"]
    for _, receipt in topic.submitted[2:]:
        receipt.settle(Fate.ACCEPTED)
    source.join()
    thread.stop()
    log.expect("event source of the topic 'news' waits: no room", logging.WARNING)


def test_an_item_that_cannot_be_published_is_dropped(
    redis_server: RedisServer, others: RedisStreams, serve: Serve, log: ServerLog
) -> None:
    app, source = App(redis=redis_server.url), Queue[str]()
    app.topic("news", max_bytes=1000).feed(source)
    there = RecordingTopic(others).follow()
    server = serve(app)
    for item in ("before", 100_000 * "x", "after"):
        source.put(item)
    there.expect("before", "after")
    log.expect("dropping item from event source: publishing it to the topic")
    source.join()
    server.stop()
