"""Programs that publish and exit, fork, or are interrupted: no event is lost without an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from tests.support.recording import Connect, RecordingTopic, data_of, numbers
from tests.support.redis_server import RedisServer
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, BrokerUnavailable, EventsLost
from wsframe.server.topics.entry import Entry
from wsframe.server.topics.sizes import Sizes

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

BEGIN = """
import os, signal, sys, warnings
from wsframe.server import App, EventsLost, BrokerUnavailable
from wsframe.server.timing import Timing

warnings.simplefilter("ignore")  # of Pythons that warn of forks beside threads
app = App(redis=sys.argv[1], timing=Timing(redis_exit_timeout=float(sys.argv[2])))
topic = app.topic("news")
"""


def run(
    program: str, url: str, patience: float = TIMEOUT, *, before: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + BEGIN + program, url, str(patience)],
        capture_output=True,
        text=True,
        timeout=6 * TIMEOUT,
        check=False,
    )


@pytest.mark.unmeasured
def test_the_events_of_a_program_are_stored_after_its_exit(
    redis_server: RedisServer, others: Any
) -> None:
    done = run("for n in range(500): topic.publish(str(n))", redis_server.url)
    assert (done.returncode, done.stderr) == (0, "")
    RecordingTopic(others, history=500).follow().expect(*numbers(500))


@pytest.mark.slow
def test_events_lost_at_exit_are_an_error_with_their_number(
    redis_server: RedisServer,
) -> None:
    redis_server.kill()
    done = run("for n in range(7): topic.publish(str(n))", redis_server.url, 0.2)
    assert "EventsLost: 7 published events are lost: Redis has not acknowledged" in done.stderr
    program = """
topic.publish("x")
try:
    app.flush(0.1)
except BrokerUnavailable as error:
    print(error)
try:
    app.close(0.1)
except EventsLost as error:
    sys.exit(f"{error.count} lost")
"""
    done = run(program, redis_server.url)
    assert "published events were not acknowledged by Redis" in done.stdout
    assert done.returncode == 1
    assert done.stderr.endswith("\n1 lost\n")


@pytest.mark.slow
def test_a_program_that_redis_rejects_does_not_wait_at_exit(redis_server: RedisServer) -> None:
    done = run('topic.publish("x")', redis_server.url.replace("://", "://:wrong@"), 10 * TIMEOUT)
    # The refusal may be known before the event waits.
    expected = "EventsLost: 1 published event is lost: ", "BrokerRefused: "
    assert any(error in done.stderr for error in expected)


@pytest.mark.slow
def test_publish_raises_after_the_exit_functions(redis_server: RedisServer) -> None:
    """A function that was registered before the import runs after the last flush."""
    before = """
import atexit
def late():
    try:
        topic.publish("late")
    except BrokerUnavailable as error:
        print(error)
atexit.register(late)
"""
    done = run('topic.publish("in time")', redis_server.url, before=before)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "the program is exiting: events can no longer be sent to Redis\n"
    with redis_server.client() as client:
        assert client.xlen("wsframe:{news}") == 1


def test_an_app_with_redis_requires_its_client_library() -> None:
    done = run("", "redis://127.0.0.1", before="import sys; sys.modules['redis'] = None\n")
    assert done.returncode == 1
    assert done.stderr.endswith('require redis-py: pip install "wsframe[redis]"\n')


def test_flush_waits_for_published_events(redis_server: RedisServer, others: Any) -> None:
    app = App(redis=redis_server.url)
    app.flush()  # no event was published
    topic = app.topic("news")
    for number in numbers(100):
        topic.publish(number)
    app.flush(TIMEOUT)
    with redis_server.client() as client:
        assert client.xlen("wsframe:{news}") == 100
    redis_server.kill()
    topic.publish("later")
    with pytest.raises(BrokerUnavailable, match="not acknowledged by Redis"):
        app.flush(0.1)
    redis_server.start()
    app.flush(TIMEOUT)
    app.close()
    App().flush()  # without Redis flush returns at once


# Forks --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.unmeasured
@needs_fork
@pytest.mark.parametrize("ends", ["os._exit(0)", "sys.exit()"])
def test_forked_children_publish_only_their_own_events(
    redis_server: RedisServer, others: Any, ends: str
) -> None:
    program = f"""
topic.publish("parent")
children = []
for number in range(10):
    child = os.fork()
    if not child:
        topic.publish(f"child {{number}}")
        if {ends!r} == "os._exit(0)":
            app.close(60)
        {ends}
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""
    done = run(program, redis_server.url)
    assert (done.returncode, done.stderr) == (0, "")
    there = RecordingTopic(others).follow()
    assert sorted(map(str, data_of(there.wait_for_entries(11)))) == sorted(
        ["parent", *(f"child {number}" for number in range(10))]
    )


POOL = """
import multiprocessing

def work(number):
    topic.publish(f"child {number}")

if __name__ == "__main__":
    topic.publish("parent")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=work, args=(number,)) for number in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
"""


@pytest.mark.slow
@needs_fork
def test_processes_of_multiprocessing_send_their_events_at_exit(
    redis_server: RedisServer, others: Any
) -> None:
    """They exit without the functions that are registered with atexit."""
    done = run(POOL, redis_server.url)
    assert (done.returncode, done.stderr) == (0, "")
    there = RecordingTopic(others).follow()
    assert len(there.wait_for_entries(9)) == 9


@pytest.mark.slow
@pytest.mark.unmeasured
@needs_fork
def test_a_fork_while_other_threads_publish_does_not_hang(
    redis_server: RedisServer, others: Any
) -> None:
    program = """
import threading
stop = threading.Event()

def publish():
    while not stop.wait(0.0001):
        topic.publish("parent")

threads = [threading.Thread(target=publish) for _ in range(4)]
for thread in threads:
    thread.start()
children = []
for number in range(50):
    child = os.fork()
    if not child:
        signal.alarm(90)
        app.topic(f"child {number % 5}").publish("child")
        topic.publish("child")
        app.close(60)
        os._exit(0)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
stop.set()
for thread in threads:
    thread.join()
assert codes == [0] * 50, codes
"""
    done = run(program, redis_server.url)
    assert (done.returncode, done.stderr) == (0, "")
    with redis_server.client() as client:
        children = [f"wsframe:{{child {number}}}" for number in range(5)]
        assert [client.xlen(name) for name in children] == [10] * 5


# Contexts that cannot wait ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers")
def test_publishing_in_a_signal_handler_that_interrupts_it(
    redis_server: RedisServer, others: Any
) -> None:
    program = """
count = 0
def interrupt(*_):
    global count
    count += 1  # another signal may interrupt this handler, too
    topic.publish(f"handler {count - 1}")
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for number in range(3000):
    topic.publish(f"main {number}")
signal.setitimer(signal.ITIMER_REAL, 0)
print(count)
"""
    done = run(program, redis_server.url)
    assert (done.returncode, done.stderr) == (0, "")
    there = RecordingTopic(others, history=10_000, max_bytes=8 << 20).follow()
    mine = [data for data in data_of(there.entries) if str(data).startswith("main")]
    assert mine == numbers(3000, "main ")
    assert len(there.entries) - len(mine) == int(done.stdout) > 0


@pytest.mark.slow
@pytest.mark.unmeasured
def test_publishing_in_a_finalizer(redis_server: RedisServer, others: Any) -> None:
    """Garbage may be collected anywhere, also while the writer takes events."""
    program = """
import gc
gc.set_threshold(20)

class Loud:
    def __init__(self, number):
        self.number, self.me = number, self
    def __del__(self):
        topic.publish(f"end of {self.number}")

for number in range(2000):
    Loud(number)
    topic.publish(f"main {number}")
gc.collect()
"""
    done = run(program, redis_server.url)
    assert (done.returncode, done.stderr) == (0, "")
    there = RecordingTopic(others, history=10_000, max_bytes=8 << 20).follow()
    assert sorted(map(str, data_of(there.entries))) == sorted(
        [*(f"end of {n}" for n in range(2000)), *(f"main {n}" for n in range(2000))]
    )


def test_a_flooded_topic_leaves_room_for_other_topics(
    redis_server: RedisServer, connect: Connect, others: Any
) -> None:
    streams = connect(redis_server.url, sizes=Sizes(max_waiting_bytes=1 << 20))
    flooded, quiet = RecordingTopic(streams), RecordingTopic(streams, "quiet")
    stop = threading.Event()
    refused = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            try:
                streams.publish(flooded, Entry(1000 * "x"))  # a topic would slow the publisher down
            except BrokerUnavailable:
                refused.set()

    with redis_server.client() as client:
        client.execute_command("CLIENT", "PAUSE", "1000", "WRITE")
    flooding = [threading.Thread(target=flood) for _ in range(2)]
    for thread in flooding:
        thread.start()
    assert refused.wait(TIMEOUT)
    for number in numbers(100):
        quiet.publish(number)
    there = RecordingTopic(others, "quiet").follow()
    wait_until(lambda: len(there.entries) == 100, "the events have arrived")
    stop.set()
    for thread in flooding:
        thread.join()
    assert there.expect(*numbers(100))
    assert streams.flush(3 * TIMEOUT)


def test_losses_are_reported_once(redis_server: RedisServer, connect: Connect) -> None:
    streams = connect(redis_server.url)
    redis_server.kill()
    RecordingTopic(streams).publish_all("1", "2")
    with pytest.raises(EventsLost):
        streams.close(0.1)
    streams.close(0.1)


@pytest.mark.slow
@pytest.mark.unmeasured
def test_publishing_in_a_finalizer_at_exit_is_an_error(
    redis_server: RedisServer,
) -> None:
    """No thread can start then."""
    program = """
class Garbage:
    def __init__(self):
        self.cycle = self
        self.publish = topic.publish
    def __del__(self):
        self.publish("from a finalizer")

garbage = Garbage()
"""
    done = run(program, redis_server.url)
    assert done.returncode == 0
    assert "BrokerUnavailable: the program is exiting" in done.stderr
