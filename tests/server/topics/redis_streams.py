"""Sources and readers of Redis streams."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from tests.support.recording import RecordingTopic, numbers
from wsframe.server import BrokerUnavailable
from wsframe.server.topics.redis import scripts


class Publishing:
    """A thread that publishes numbers; a context manager that stops it."""

    def __init__(self, topic: RecordingTopic) -> None:
        self.count = 0
        self._topic = topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            with suppress(BrokerUnavailable):
                self._topic.publish(str(self.count))
                self.count += 1
            self._stop.wait(0.0005)

    def __enter__(self) -> Publishing:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def check_that_all_came(publishing: Publishing, *topics: RecordingTopic) -> None:
    for topic in topics:
        topic.expect(*numbers(publishing.count))


def publish_by_script(client: Any, number: int, before: int, data: str = "x", **bounds: int) -> Any:
    """Publish as the publisher "p", on any connection."""
    kept = {"entries": 1000, "weight": 1 << 20, "ms": 60_000, "last": 0, **bounds}
    keys = [f"wsframe:{{news}}{kind}" for kind in ("", ":meta", ":by:p")]
    arguments = (number, before, *kept.values(), "wsframe:{news}@0", 0, "d", data)
    return client.eval(scripts.PUBLISH, 3, *keys, *arguments)


def kept(client: Any) -> tuple[list[bytes], bytes, int]:
    """Return the data in the stream, its floor, and the bytes that it counts."""
    entries = client.execute_command("XRANGE", "wsframe:{news}", "-", "+")
    floor, size = client.hmget("wsframe:{news}:meta", "floor", "bytes")
    return [fields[b"d"] for _, fields in entries], floor, int(size)
