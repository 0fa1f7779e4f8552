"""Publishing in any context: it never waits without a limit, and loses no event.

Finalizers, signal handlers and forks happen at any time, so these tests run for a while in a
process of their own, which is killed if it hangs.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.clients import Clients
from tests.support.inspection import loops_of
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.topics import log_of
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import StateError
from wsframe.server import App, EventStream, Published, Server, Topic, WebSocket
from wsframe.server.timing import Timing

# A client of a server in the same process receives all events.
LISTENING = """
import gc, os, signal, socket, sys, threading, time
from wsframe.server import App

app = App()
topic = app.topic("news", history=100_000, max_bytes=64 << 20)
app.sse("/news", source=topic)
server = app.start("127.0.0.1")
client = socket.create_connection(("127.0.0.1", server.port))
client.sendall(b"GET /news HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
while not topic.stats().subscribers:
    time.sleep(0.01)

seen = bytearray()

def read():
    while data := client.recv(1 << 16):
        seen.extend(data)

reading = threading.Thread(target=read)
reading.start()

def hear(count):
    until = time.monotonic() + 60
    while seen.count(b"data:") < count and time.monotonic() < until:
        time.sleep(0.01)
    assert seen.count(b"data:") == count, seen.count(b"data:")

def end():
    server.stop()
    reading.join()
    client.close()
"""

FINALIZERS = """
class Garbage:
    def __init__(self):
        self.cycle = self
    def __del__(self):
        topic.publish("from a finalizer")

gc.collect()
for allocations in range(1, 500):
    gc.set_threshold(allocations % 50)  # so that the collector runs at every place in the end
    Garbage()
    topic.publish("from a thread")
gc.collect()
hear(998)
end()
"""

SIGNALS = """
received = 0
def handle(*_):
    global received
    received += 1
    topic.publish("from a signal handler")

signal.signal(signal.SIGALRM, handle)
published = 0
while received < 300 or published < 1000:
    signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + published % 300))
    topic.publish("from a thread")
    published += 1
while signal.getitimer(signal.ITIMER_REAL)[0]:
    time.sleep(0.001)
hear(published + received)
end()
"""

EVERY_METHOD = """
topic.configure(history=20)
received = 0
def handle(*_):
    global received
    received += 1
    topic.publish("from a signal handler")
    topic.stats(), topic.members(), topic.configure(history=20)
    app.topic("another").publish("from a signal handler")

signal.signal(signal.SIGALRM, handle)
methods = [
    lambda: topic.publish("from a thread"),
    topic.stats,
    topic.members,
    lambda: topic.configure(history=20),
]
called = 0
while received < 300 or called < 3000:
    signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + called % 300))
    methods[called % len(methods)]()
    called += 1
while signal.getitimer(signal.ITIMER_REAL)[0]:
    time.sleep(0.001)
hear((called + 3) // 4 + received)
end()
"""

FORKS = """
over = threading.Event()
def publish():
    while not over.is_set():
        topic.publish("x" * 100)
publishing = [threading.Thread(target=publish) for _ in range(2)]
for thread in publishing:
    thread.start()
children = []
for _ in range(50):
    pid = os.fork()
    if not pid:
        assert topic.publish("in a child").reached == 0
        assert app.topic("another").publish("in a child").reached == 0
        assert topic.stats().subscribers == 0
        topic.close()
        os._exit(0)
    children.append(pid)
until = time.monotonic() + 60
for pid in children:
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        assert time.monotonic() < until, "a child stands still"
        time.sleep(0.01)
    assert ended[1] == 0
over.set()
end()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(FINALIZERS, id="finalizers", marks=pytest.mark.unmeasured),
        pytest.param(
            SIGNALS,
            id="signal handlers",
            marks=[
                pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here"),
                pytest.mark.unmeasured,
            ],
        ),
        pytest.param(
            EVERY_METHOD,
            id="every method in a signal handler",
            marks=pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here"),
        ),
        pytest.param(
            FORKS,
            id="forked children",
            marks=[
                pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
                pytest.mark.unmeasured,
            ],
        ),
    ],
)
def test_publish_returns_in_any_context(script: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", LISTENING + script],
        capture_output=True,
        text=True,
        timeout=6 * TIMEOUT,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@contextmanager
def kept_busy(topic: Topic) -> Iterator[None]:
    """Let another thread hold the lock of a topic."""
    busy, over = threading.Event(), threading.Event()

    def keep_busy() -> None:
        with log_of(topic).lock:
            busy.set()
            assert over.wait(TIMEOUT)

    thread = threading.Thread(target=keep_busy)
    thread.start()
    assert busy.wait(TIMEOUT)
    yield
    over.set()
    thread.join()


def wait_for_calls(server: Server) -> None:
    """Wait until the loop has made all calls that are queued now."""
    made = threading.Event()
    loops_of(server)[0].call_soon(made.set)
    assert made.wait(TIMEOUT)


def test_an_event_is_queued_while_another_thread_keeps_the_topic_busy(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    """As when a finalizer in that thread waits for the publisher."""
    app = App(timing=Timing(publish_lock_timeout=0.01))
    topic = app.topic("news")
    app.sse("/news", source=topic)
    server = serve(app)
    stream = clients.stream(server, "/news")
    wait_until(lambda: topic.stats().subscribers, "the client is subscribed")
    wait_for_calls(server)  # the subscription begins, which takes the lock
    with kept_busy(topic):
        assert topic.publish("1") == Published(reached=0)
        wait_for_calls(server)  # the loop does not get the lock either
        assert not log.records
    wait_for_calls(server)  # which take the lock again
    assert topic.publish("2").reached == 1
    assert stream.expect(2) == ["1", "2"]


def test_an_event_that_a_closed_topic_drops_later_is_logged(serve: Serve, log: ServerLog) -> None:
    app = App(timing=Timing(publish_lock_timeout=0.01))
    topic = app.topic("news")
    server = serve(app)
    with kept_busy(topic):
        topic.close()
        assert topic.publish("1") == Published(reached=0)
    with pytest.raises(StateError, match="is closed"):
        topic.publish("2")
    wait_for_calls(server)
    log.expect("dropping 1 events: the topic 'news' is closed", logging.WARNING)
    assert not log.records


def test_events_published_in_a_method_of_the_topic_reach_the_history() -> None:
    topic = App().topic("news")
    with log_of(topic).lock:  # as if a finalizer ran in a method of the topic
        topic.publish("1")
        topic.close()
    assert topic.stats().history == 1
    topic = App().topic("news")
    with log_of(topic).lock:
        topic.publish("1")
    assert topic.publish("2") == Published()
    assert topic.stats().history == 2


def test_an_event_published_after_the_end_is_not_in_the_history() -> None:
    topic = App().topic("news")
    with log_of(topic).lock:  # as if a finalizer ran in a method of the topic
        topic.publish("1")
        topic.close()
        topic.publish("late")
    assert topic.stats().history == topic.stats().published == 1


def test_code_that_interrupts_a_method_of_a_topic_does_not_change_its_log() -> None:
    topic = App().topic("news", history=3)
    for number in range(3):
        topic.publish(f"{number}")
    with log_of(topic).lock:  # as if a signal handler ran in a method of the topic
        topic.publish("3")
        log_of(topic).configure(history=1)
        assert topic.stats().history == 3
    topic.publish("4")
    assert topic.stats().history == 1


def test_code_that_interrupts_a_method_of_a_topic_cannot_change_its_kind_of_log() -> None:
    topic = App().topic("news")
    with log_of(topic).lock, pytest.raises(StateError, match="is in a method of the topic"):
        log_of(topic).configure(policy="latest")
    log_of(topic).configure(policy="latest")


def test_a_topic_created_twice_at_once_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer may look up the topic that its thread is just creating."""
    app = App()
    interrupting: list[Topic] = []

    class Reference(weakref.KeyedRef[str, Any]):
        def __new__(cls, *arguments: Any) -> Any:
            if not interrupting and isinstance(arguments[0], Topic):
                interrupting.append(arguments[0])  # ends the recursion
                interrupting[0] = app.topic("news")
            return super().__new__(cls, *arguments)

    monkeypatch.setattr(weakref, "KeyedRef", Reference)
    assert app.topic("news") is interrupting[0] is app.topic("news")


def test_a_subscription_may_begin_in_a_signal_handler(serve: Serve, clients: Clients) -> None:
    """If it interrupts a method of the topic, the loop begins the subscription."""
    app = App()
    topic = app.topic("news")
    begun = threading.Event()

    @app.websocket("/news")
    def news(ws: WebSocket) -> None:
        with log_of(topic).lock:  # as if a signal handler ran in a method of the topic
            ws.subscribe(topic)
            assert not topic.stats().subscribers
        begun.set()
        for _ in ws:
            pass

    client = clients.websocket(serve(app), "/news")
    assert begun.wait(TIMEOUT)
    wait_until(lambda: topic.stats().subscribers, "the client is subscribed")
    topic.publish("1")
    assert client.next_event() == "1"


def test_a_subscription_may_be_closed_by_a_finalizer(serve: Serve, clients: Clients) -> None:
    app = App()
    topic = app.topic("news")
    subscriptions = []

    @app.sse("/news")
    def news(stream: EventStream) -> None:
        subscriptions.append(stream.subscribe(topic))

    clients.stream(serve(app), "/news").read_opening()
    with log_of(topic).lock:
        subscriptions[0].close()
        assert topic.stats().subscribers == 1  # the interrupted method sees no change
    wait_until(lambda: not topic.stats().subscribers, "the subscription is removed")


class Shouting(str):
    """Text of a user's class with its own methods."""

    __slots__ = ()

    def __str__(self) -> str:
        raise AssertionError("called where no code of the user's may run")

    __hash__ = __str__  # type: ignore[assignment]
    __eq__ = __str__  # type: ignore[assignment]
    encode = isascii = __format__ = __str__  # type: ignore[assignment]


@pytest.mark.parametrize("envelope", [False, True])
def test_a_loop_calls_no_methods_of_the_users_classes(
    serve: Serve, clients: Clients, envelope: bool
) -> None:
    app = App()

    @app.websocket("/news")
    def news(ws: Any) -> Any:
        ws.subscribe("news", envelope=envelope)
        while True:
            yield

    client = clients.websocket(serve(app), "/news")
    topic = app.topic("news")
    wait_until(lambda: topic.stats().subscribers, "the client is subscribed")
    topic.publish(Shouting("1"), Shouting("event"), Shouting("id"), key=Shouting("key"))
    if envelope:
        assert json.loads(str(client.next_event()))["event"] == "open"
        assert json.loads(str(client.next_event())) == {
            "topic": "news",
            "id": "id",
            "event": "event",
            "data": "1",
        }
    else:
        assert client.next_event() == "1"
