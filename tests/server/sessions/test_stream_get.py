"""``stream.get``: a generator waits for an item of a queue until its client leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from logging import WARNING
from queue import Empty, LifoQueue, PriorityQueue, Queue, SimpleQueue
from typing import Any

import pytest

from tests.support.clients import Clients, get, upgrade
from tests.support.handlers import Checkpoint
from tests.support.inspection import loops_of, wait_for_disconnects
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, EventStream, WebSocket
from wsframe.server.handoff.queues import next_item
from wsframe.server.timing import Timing

LONG = 3 * TIMEOUT


class OwnQueue(Queue[Any]):
    """A queue whose ``get`` does more than that of Queue."""

    got = 0

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        item = super().get(block, timeout)
        self.got += 1
        return item


KINDS: list[Callable[[], Any]] = [Queue, LifoQueue, PriorityQueue, SimpleQueue, OwnQueue]
EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


class Feed:
    """An app whose streams wait for items of one queue.

    Attributes:
        waiting: one item for each stream that begins to wait.
        ended: how each of the handlers has ended.
    """

    def __init__(self, source: Any, timeout: float | None = None) -> None:
        self.source = source
        self.timeout = timeout
        self.waiting: Queue[EventStream] = Queue()
        self.ended: Queue[str] = Queue()
        self.app = App(timing=Timing(queue_check_interval=0.05))
        self.app.sse("/news")(self.news)

    def news(self, stream: EventStream) -> Iterator[Any]:
        try:
            while True:
                self.waiting.put(stream)
                yield stream.get(self.source, self.timeout)
        except BaseException as error:
            self.ended.put(type(error).__name__)
            raise

    def stream(self, clients: Clients, server: Any) -> Any:
        client = clients.stream(server, "/news")
        self.waiting.get(timeout=TIMEOUT)
        return client


@EVERY_KIND
def test_every_item_is_sent_to_one_stream(
    serve: Serve, clients: Clients, kind: Callable[[], Any]
) -> None:
    feed = Feed(kind())
    server = serve(feed.app)
    streams = [feed.stream(clients, server) for _ in range(3)]
    for number in range(30):
        feed.source.put(str(number))
    wait_until(lambda: server.stats().messages_out == 30, "all are sent")
    for client in streams:
        client.half_close()
    seen = [event for client in streams for event in read_data(client)]
    assert sorted(seen) == sorted(map(str, range(30)))
    assert getattr(feed.source, "got", 30) == 30


def read_data(client: Any) -> list[str]:
    events = client.decoder.receive(client.read_to_end())
    return [event.data for event in events]


@EVERY_KIND
@pytest.mark.parametrize("how", ["reset", "close", "server's end"])
def test_the_wait_ends_with_the_client_and_takes_nothing(
    serve: Serve, clients: Clients, kind: Callable[[], Any], how: str
) -> None:
    feed = Feed(kind())
    server = serve(feed.app)
    client = clients.stream(server, "/news")
    stream = feed.waiting.get(timeout=TIMEOUT)
    if how == "server's end":
        stream.close()
    else:
        getattr(client, how)()
    assert feed.ended.get(timeout=TIMEOUT) == "ConnectionClosed"
    wait_until(lambda: server.stats().handlers_in_threads == 0, "its thread is free")
    feed.source.put("for another")
    assert feed.stream(clients, server).expect(1) == ["for another"]


def test_clients_that_leave_keep_no_thread(serve: Serve, clients: Clients) -> None:
    feed = Feed(Queue())
    server = serve(feed.app)
    staying = feed.stream(clients, server)
    for _ in range(64):
        feed.stream(clients, server).close()
    wait_until(lambda: server.stats().handlers_in_threads == 1, "their threads are free")
    feed.source.put("news")
    assert staying.expect(1) == ["news"]


@EVERY_KIND
def test_an_item_taken_too_late_for_its_stream_goes_to_another(
    kind: Callable[[], Any],
) -> None:
    """A queue whose client leaves while its thread is about to take the item."""
    source = kind()
    left = threading.Event()

    def put_and_leave() -> bool:
        if not left.is_set():
            left.set()
            if getattr(source, "mutex", None) is None:
                source.put("item")
            else:  # this thread may hold the mutex
                source.queue.append("item")
            return False
        return True

    with pytest.raises(Empty):
        next_item(source, put_and_leave, None, 60)
    assert source.get_nowait() == "item"


class BusyLock:
    """The lock of a queue, which another thread seems to hold until the test frees it.

    Attributes:
        refused: set after an attempt to acquire it without waiting has failed.
        is_free: True once such an attempt may succeed.
    """

    def __init__(self, lock: Any) -> None:
        self.refused = threading.Event()
        self.is_free = False
        self._lock = lock

    def acquire(self, blocking: bool = True) -> bool:
        if not (blocking or self.is_free):
            self.refused.set()
            return False
        return bool(self._lock.acquire(blocking))

    def release(self) -> None:
        self._lock.release()


def test_a_handler_ends_although_its_queue_is_locked_when_its_client_leaves(
    serve: Serve, clients: Clients
) -> None:
    """The loop does not wait for the lock; it notifies the handler later."""
    source: Queue[Any] = Queue()
    lock = BusyLock(source.mutex)
    source.mutex = lock  # type: ignore[assignment]
    feed = Feed(source)
    server = serve(feed.app)
    feed.stream(clients, server).close()
    assert lock.refused.wait(TIMEOUT)
    wait_for_disconnects(server)
    lock.is_free = True
    assert feed.ended.get(timeout=TIMEOUT) == "ConnectionClosed"


class Refilled(Queue[Any]):
    """A queue into which another thread puts an item as soon as one is taken."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        item = super().get(block, timeout)
        self.put_nowait("next")
        return item


def test_an_item_is_put_back_into_a_queue_that_is_full() -> None:
    source = Refilled(maxsize=1)
    source.put("item")
    answers = iter([False, True, True])

    def take() -> None:
        with pytest.raises(Empty):
            next_item(source, lambda: next(answers), None, 60)

    taking = threading.Thread(target=take, daemon=True)
    taking.start()
    taking.join(TIMEOUT)
    assert not taking.is_alive()
    assert list(source.queue) == ["next", "item"]
    assert source.unfinished_tasks == 2  # each must be marked as done once


@pytest.mark.parametrize("kind", [Queue, SimpleQueue])
@pytest.mark.parametrize("timeout", [1e12, float("inf")])
def test_a_wait_may_be_longer_than_a_lock_can_wait(
    serve: Serve, clients: Clients, kind: Callable[[], Any], timeout: float
) -> None:
    feed = Feed(kind(), timeout)
    stream = feed.stream(clients, serve(feed.app))
    feed.source.put("news")
    assert stream.expect(1) == ["news"]


def test_a_thread_whose_client_has_left_wakes_the_next() -> None:
    """``put`` wakes one waiting thread; if its client has left, another must take the item."""
    source: Queue[str] = Queue()
    left = threading.Event()
    entered: Queue[int] = Queue()
    taken: Queue[str] = Queue()

    def leaves() -> bool:
        entered.put(1)
        return left.is_set()

    def stays() -> bool:
        entered.put(2)
        return False

    def wait(has_left: Callable[[], bool]) -> None:
        try:
            taken.put(next_item(source, has_left, LONG, LONG))
        except Empty:
            taken.put("left")

    threads = []
    for has_left in (leaves, stays):
        threads.append(threading.Thread(target=wait, args=(has_left,)))
        threads[-1].start()
        entered.get(timeout=TIMEOUT)
        wait_until(lambda: len(source.not_empty._waiters) == len(threads), "it waits")  # type: ignore[attr-defined]
    left.set()
    source.put("item")  # wakes the first, whose client has left
    assert {taken.get(timeout=TIMEOUT) for _ in range(2)} == {"left", "item"}
    for thread in threads:
        thread.join(TIMEOUT)


def test_a_bounded_queue_accepts_the_next_item(serve: Serve, clients: Clients) -> None:
    feed = Feed(Queue(maxsize=1))
    client = feed.stream(clients, serve(feed.app))
    for number in range(20):
        feed.source.put(str(number), timeout=TIMEOUT)
    assert client.expect(20) == list(map(str, range(20)))


@EVERY_KIND
@pytest.mark.parametrize("timeout", [-1.0, 0.0, 0.01])
def test_a_wait_may_have_a_timeout(
    serve: Serve, clients: Clients, log: ServerLog, kind: Callable[[], Any], timeout: float
) -> None:
    feed = Feed(kind(), timeout)
    clients.stream(serve(feed.app), "/news")
    assert feed.ended.get(timeout=TIMEOUT) == "TimeoutError"
    log.expect("the handler of /news failed")


@pytest.mark.skipif(not hasattr(Queue, "shutdown"), reason="needs Python 3.13: Queue.shutdown")
def test_a_queue_that_is_shut_down_ends_the_wait(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    feed = Feed(Queue())
    feed.stream(clients, serve(feed.app))
    feed.source.shutdown()
    assert feed.ended.get(timeout=TIMEOUT) == "ShutDown"
    log.expect("the handler of /news failed")


def test_a_held_lock_of_a_queue_does_not_block_the_loop(serve: Serve, clients: Clients) -> None:
    feed = Feed(Queue())
    feed.app.page("/", "page")
    server = serve(feed.app)
    client = feed.stream(clients, server)
    (loop,) = loops_of(server)
    tried = threading.Event()
    with feed.source.mutex:
        client.close()
        wait_for_disconnects(server)
        loop.call_soon(lambda: loop.at_next_tick(tried.set))
        assert tried.wait(TIMEOUT)
        page = clients.connect(server)
        page.send(get("/"))
        assert page.answer().body == b"page"
        assert feed.ended.empty()
    assert feed.ended.get(timeout=TIMEOUT) == "ConnectionClosed"


@pytest.mark.slow
def test_a_stop_ends_the_wait(serve: Serve, clients: Clients) -> None:
    feed = Feed(Queue())
    server = serve(feed.app, drain=60)
    client = feed.stream(clients, server)
    stop_within(server, TIMEOUT)
    assert feed.ended.get(timeout=TIMEOUT) == "ConnectionClosed"
    client.close()


# Handlers that wait in another way ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["events", "plain", "authorize", "turn"])
def test_a_handler_that_outlives_its_client_is_logged_and_counted(
    serve: Serve, clients: Clients, log: ServerLog, kind: str
) -> None:
    held = Checkpoint()

    def events(stream: EventStream) -> Iterator[str]:
        held.wait()
        yield "too late"

    def plain(ws: WebSocket) -> None:
        held.wait()

    def turn(ws: WebSocket) -> Iterator[None]:
        held.wait()
        yield

    def authorize(request: object) -> bool:
        held.wait()
        return True

    app = App(timing=Timing(overdue_after=0.01))
    app.sse("/events")(events)
    app.websocket("/plain")(plain)
    app.websocket("/turn")(turn)
    app.websocket("/authorize", authorize=authorize)(turn)
    app.metrics()
    server = serve(app)
    client = clients.connect(server)
    client.send(get("/events") if kind == "events" else upgrade(f"/{kind}"))
    held.wait_until_reached()
    wait_until(lambda: server.stats().handlers_in_threads == 1, "it has a thread")
    assert server.stats().orphaned_handlers == 0
    client.reset()
    log.expect(
        f"/{kind}: a handler still has its thread 0.01 s after its client has disconnected", WARNING
    )
    assert server.stats().orphaned_handlers == 1
    metrics = clients.connect(server)
    metrics.send(get("/metrics"))
    assert b"\nwsframe_orphaned_handlers 1\n" in metrics.answer().body
    held.release()
    wait_until(lambda: server.stats().orphaned_handlers == 0, "it has ended")
    assert not loops_of(server)[0].unfinished
