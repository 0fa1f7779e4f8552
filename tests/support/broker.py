"""A broker in memory, the second implementation of SharedLog beside Redis.

docs/design.md refers to it as the example for new brokers.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from queue import SimpleQueue

from wsframe.server.topics.entry import Entry
from wsframe.server.topics.receipts import Fate, Published, Receipt
from wsframe.server.topics.shared import Replica, SharedLog


class Broker:
    """The logs that processes share.

    Attributes:
        lock: guards the broker.
        entries: all entries by topic.
        members: the number of connections by topic and member.
        processes: the connected processes.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.entries: dict[str, list[Entry]] = {}
        self.members: Counter[tuple[str, str]] = Counter()
        self.processes: list[MemoryLog] = []


class MemoryLog(SharedLog):
    """One process's connection to a :class:`Broker`; its thread fills the replicas.

    Attributes:
        capacity: the number of entries of a topic that may wait before publishers must slow down.
    """

    def __init__(self, broker: Broker) -> None:
        self.capacity = 1 << 30
        self._broker = broker
        self._replicas: dict[str, Replica] = {}
        self._waiting: Counter[str] = Counter()
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        broker.processes.append(self)

    def publish(
        self, replica: Replica, entry: Entry, receipt: Receipt | None = None
    ) -> Published | None:
        self._waiting[replica.name] += 1
        self._calls.put(lambda: self._add(replica.name, entry, receipt))
        return None

    def _add(self, topic: str, entry: Entry, receipt: Receipt | None) -> None:
        with self._broker.lock:
            entries = self._broker.entries.setdefault(topic, [])
            if not (entries and entries[-1].last):
                entries.append(copy(entry, f"{len(entries) + 1}-0"))
                for process in self._broker.processes:
                    process.deliver(topic, entries[-1])
        self._waiting[topic] -= 1
        if receipt is not None:
            receipt.settle(Fate.ACCEPTED)

    def deliver(self, topic: str, entry: Entry) -> None:
        """Any thread, under the broker's lock: append an entry to this process's replica."""
        replica = self._replicas.get(topic)
        if replica is not None:
            self._calls.put(lambda: self._append(replica, entry))

    @staticmethod
    def _append(replica: Replica, entry: Entry) -> None:
        replica.append([copy(entry, entry.stream_id)])
        replica.place()

    def is_crowded(self, replica: Replica) -> bool:
        return self._waiting[replica.name] > self.capacity

    def when_room(self, replica: Replica, call: Callable[[], object]) -> None:
        self._calls.put(call)  # all that waits is before it

    def follow(self, replica: Replica) -> bool:
        self._calls.put(lambda: self._load(replica))
        return False

    def _load(self, replica: Replica) -> None:
        with self._broker.lock:
            self._replicas[replica.name] = replica
            entries = list(self._broker.entries.get(replica.name, ()))
        replica.load("0-0", [copy(entry, entry.stream_id) for entry in entries])

    def unfollow(self, replica: Replica) -> None:
        self._calls.put(lambda: self._replicas.pop(replica.name, None))

    def join(self, replica: Replica, member: str) -> None:
        with self._broker.lock:
            self._broker.members[replica.name, member] += 1

    def leave(self, replica: Replica, member: str) -> None:
        with self._broker.lock:
            self._broker.members[replica.name, member] -= 1

    def members(self, replica: Replica) -> list[str]:
        with self._broker.lock:
            members = self._broker.members
            return sorted(who for (topic, who) in +members if topic == replica.name)

    def flush(self, timeout: float) -> bool:
        done = threading.Event()
        self._calls.put(done.set)
        return done.wait(timeout)

    def close(self, timeout: float) -> None:
        self.flush(timeout)

    def disconnect(self) -> None:
        """End the thread."""
        self._broker.processes.remove(self)
        self._calls.put(None)
        self._thread.join()

    def pause(self) -> threading.Event:
        """Have the thread do nothing until the event is set."""
        resume = threading.Event()
        self._calls.put(resume.wait)
        return resume

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def copy(entry: Entry, stream_id: str) -> Entry:
    """Return an entry of one process's own."""
    return Entry(
        entry.data,
        entry.event,
        entry.id or stream_id,
        key=entry.key,
        retry=entry.retry,
        last=entry.last,
        stream_id=stream_id,
    )
