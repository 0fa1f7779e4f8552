"""A loop whose hand-off the test decides, step by step."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from math import inf
from queue import Queue
from time import monotonic
from typing import Any, TypeVar

from tests.support.handlers import Checkpoint
from tests.support.waiting import TIMEOUT
from wsframe.server.handoff.blocking import BlockingProfile
from wsframe.server.handoff.loop import Loop
from wsframe.server.handoff.monitor import Monitor
from wsframe.server.handoff.task import IDLE, Task
from wsframe.server.handoff.threads import Threads
from wsframe.server.settings import Settings
from wsframe.server.sockets.clients import Clients
from wsframe.server.sockets.peer import Peer
from wsframe.server.sockets.session import Session
from wsframe.server.timing import Timing

Result = TypeVar("Result")


TIMING = Timing()


class Conversation(Session, Task):
    """A task for which every read is work; the test defines the work.

    Attributes:
        ran: the threads of its turns.
        settled: for every settling, whether it was the owner's.
    """

    peer: Peer

    def __init__(
        self, peer: Peer, profile: BlockingProfile, act: Callable[[Conversation, bytes], object]
    ):
        super().__init__(peer, profile)
        self.act = act
        self.ran: list[threading.Thread] = []
        self.settled: Queue[bool] = Queue()
        self._running = threading.Lock()

    path = "/test"

    def data_received(self, data: memoryview) -> Task | None:
        self.work = [*(self.work or ()), bytes(data)]
        return self if self.state is IDLE else None

    def work_on(self, work: list[Any]) -> None:
        assert self._running.acquire(blocking=False), "two turns at once"
        try:
            self.ran.append(threading.current_thread())
            for item in work:
                self.act(self, item)
        finally:
            self._running.release()

    def finish_turn(self) -> None:
        self.needs_finish = False
        if self.work is not None:
            self.schedule()
        self.settled.put(self.peer.loop.owned())

    def disconnected(self) -> None:
        pass

    def deadline_passed(self) -> None:
        pass

    def shut_down(self) -> None:
        pass


class Rig:
    """A loop with threads, and connections without a server.

    Its monitor is not started unless a test does so; the test looks at the loop itself.

    Args:
        timing: the timing of the loop, the threads and the monitor.
        **options: further arguments of the loop.
    """

    def __init__(self, timing: Timing = TIMING, **options: Any) -> None:
        self.threads = Threads(
            1,
            timing,
            max_threads=8,
            max_handler_threads=8,
            reserve_threads=8,
            max_thread_share=0.5,
        )
        self.monitor = Monitor(timing)
        self._monitored = False
        self.loop = Loop(timing, self.threads, self.monitor, **options)
        self.clients = Clients(self.loop, Settings())
        self._sockets: list[socket.socket] = []
        self._profiles: dict[str, BlockingProfile] = {}

    def connect(
        self,
        act: Callable[[Conversation, bytes], object],
        *,
        route: str = "/",
        blocking: bool | None = None,
        kind: type[Conversation] = Conversation,
    ) -> tuple[Conversation, socket.socket]:
        """Return a connection and its client's socket."""
        ours, theirs = socket.socketpair()
        self._sockets += ours, theirs
        ours.setblocking(False)
        theirs.settimeout(TIMEOUT)
        profile = self._profiles.setdefault(
            route, BlockingProfile(route, blocking, self.loop.timing)
        )

        def begin() -> Conversation:
            peer = Peer(self.clients, ours, "client")
            task = kind(peer, profile, act)
            self.loop.unfinished.add(task)
            peer.open(task, inf)
            return task

        return self.ask(begin), theirs

    def ask(self, function: Callable[[], Result]) -> Result:
        """Call the function on the owner's thread; return its result."""
        answers: Queue[Result] = Queue()
        self.loop.call_soon(lambda: answers.put(function()))
        return answers.get(timeout=TIMEOUT)

    def set_timing(self, **durations: Any) -> None:
        """Change the timing of the loop."""
        self.loop.timing = replace(self.loop.timing, **durations)

    def owner(self) -> threading.Thread:
        """Return the owner's thread."""
        return self.ask(threading.current_thread)

    def start_monitor(self) -> None:
        """Let the monitor check the loop."""
        self._monitored = True
        self.monitor.start([self.loop])

    def look_twice(self) -> None:
        """Take the loop from the running turn."""
        assert self.loop.watch()
        assert not self.loop.watch()

    def close(self) -> None:
        """End the loop and its threads."""
        if self._monitored:
            self.monitor.stop()
        self.loop.stop(TIMEOUT)
        self.threads.close(monotonic() + TIMEOUT)
        for sock in self._sockets:
            sock.close()


def echo(task: Conversation, item: bytes) -> None:
    """Echo the item."""
    task.peer.send(item)


class Blocks:
    """Sends ``item<`` and ``item>``, and waits in between if the item is in upper case."""

    def __init__(self) -> None:
        self.held = {item: Checkpoint() for item in (b"A", b"B", b"C")}

    def __call__(self, task: Conversation, item: bytes) -> None:
        task.peer.send(item + b"<")
        if item in self.held:
            self.held[item].wait()
        task.peer.send(item + b">")


def block(rig: Rig, client: socket.socket, held: Checkpoint, item: bytes = b"A") -> None:
    """Send an item that blocks, and take the loop from its turn."""
    client.sendall(item)
    held.wait_until_reached()
    rig.look_twice()


def receive(client: socket.socket, size: int) -> bytes:
    """Receive this number of bytes."""
    data = b""
    while len(data) < size:
        data += client.recv(size - len(data))
    return data


def exchange(client: socket.socket, data: bytes) -> None:
    """Check that the connection is served."""
    client.sendall(data)
    assert receive(client, len(data)) == data
