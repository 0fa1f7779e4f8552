"""Redis and server processes are killed while events are published: no event is lost or doubled."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.support.processes import ServerProcess
from tests.support.redis_server import RedisServer
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.client import events
from wsframe.server import App, BrokerUnavailable, Topic

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

COUNT = 5000
CLIENTS = 12
HISTORY = 10_000
# After so many events, Redis or a server process is killed.
KILLS = {1000: "redis", 2000: "worker", 3000: "redis", 3500: "worker", 4500: "redis"}

PROGRAM = f"""
from wsframe.server import App
app = App()
app.topic("news", history={HISTORY}, max_bytes=8 << 20)

@app.sse("/events")
def events(stream):
    stream.subscribe("news", after="")
"""


def workers(server: ServerProcess) -> list[int]:
    """Return the worker processes."""
    text = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii")
    return [int(pid) for pid in text.split()]


def follow(url: str) -> list[str]:
    """Yield the events of a client that reconnects, as an EventSource does."""
    seen: list[str] = []
    with closing(events(url, retry=0.05, read_timeout=6 * TIMEOUT)) as stream:
        for event in stream:
            if event.event == "end":
                return seen
            seen.append(event.data if event.event is None else f"{event.event}: {event.data}")
    return seen


class Publisher(threading.Thread):
    """A publisher of numbers in order, which waits while the outbox is full."""

    def __init__(self, topic: Topic) -> None:
        super().__init__()
        self._topic = topic
        self.published = 0

    def has_published(self, number: int) -> bool:
        """Return True if so many numbers are published."""
        return self.published >= number

    def run(self) -> None:
        """Publish all numbers, and the end."""
        pause = threading.Event()
        while self.published < COUNT:
            try:
                self._topic.publish(str(self.published))
                self.published += 1
            except BrokerUnavailable:
                pass
            pause.wait(0.0005)
        self._topic.publish("", event="end")


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="workers are found in /proc")
def test_no_event_is_lost_or_doubled(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as redis:
        command = ("-m", "wsframe.server", "program:app", "--port", "0", "--workers", "2")
        app = App(redis=redis.url)
        with (
            closing(app),
            ServerProcess(*command, "--redis", redis.url, directory=tmp_path) as server,
            ThreadPoolExecutor(CLIENTS) as threads,
        ):
            clients = [threads.submit(follow, f"{server.url}/events") for _ in range(CLIENTS)]
            publisher = Publisher(app.topic("news", history=HISTORY, max_bytes=8 << 20))
            publisher.start()
            for number, victim in KILLS.items():
                wait_until(partial(publisher.has_published, number), "the events are published")
                if victim == "redis":
                    redis.kill()
                    redis.start()
                else:
                    os.kill(workers(server)[0], signal.SIGKILL)
            publisher.join()
            everything = list(map(str, range(COUNT)))
            for client in clients:
                assert client.result(6 * TIMEOUT) == everything
