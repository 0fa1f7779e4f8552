"""A worker process: its main function, and its link to the supervisor."""

from __future__ import annotations

import atexit
import faulthandler
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from io import BufferedRandom
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..forks import close_in_children
from ..reports.failure import Failure
from ..reports.stats import Stats, encode
from ..signals import Interrupted, Signals
from ..sockets.shutdown import SPREAD
from ..timing import Timing
from .channel import Channel, decode_stats, encode_stats

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from ..server import Server
    from ..settings import Settings
    from ..sockets.listening import Listening
    from ..topics.closings import Closings

# The signal that writes the stacks of all threads and ends the process. Applications rarely use it.
DUMP_SIGNAL: int = getattr(signal, "SIGRTMAX", getattr(signal, "SIGQUIT", 0))
# The maximum number of requests for metrics that wait at once.
MAX_WAITING = 1000
# The maximum length of the message that a worker gives for not starting, and of its traceback.
MAX_REASON = 1 << 16

#: A callback; its argument is the metrics of the service, or None if they are not available.
MetricsCallback: TypeAlias = "Callable[[bytes | None], object]"


class StartWorker(Protocol):
    """The type of a function that starts the server of a worker."""

    def __call__(
        self,
        sockets: Listening,
        interrupting: Callable[[], AbstractContextManager[None]],
        link: SupervisorLink,
    ) -> Server:
        """The main thread: start the server.

        Args:
            sockets: the listening sockets.
            interrupting: a context manager for the application's code, which a stop signal then
                ends.
            link: the link that must be attached to the server.
        """


class SupervisorLink:
    """A worker's link to its supervisor.

    Args:
        channel: to the supervisor.
        end: a function that the link's thread calls when the worker must end, because the
            supervisor has ended or has started a successor.

    Attributes:
        alone: True if the supervisor has no other worker.
    """

    def __init__(self, channel: Channel, end: Callable[[], object]) -> None:
        self.alone: bool = True
        self._channel = channel
        self._end = end
        self._lock = threading.Lock()  # protects the two lists
        # The callbacks that wait for the requested metrics.
        self._requested: list[MetricsCallback] = []
        self._waiting: list[MetricsCallback] = []  # the callbacks that wait for the next request
        self._server: Server | None = None
        self._stats: Callable[[], Stats] = Stats
        self._closings: Closings | None = None

    def attach(self, server: Server, stats: Callable[[], Stats], closings: Closings) -> None:
        """The main thread: set the running server, the source of its numbers, and the closings.

        The closings of identities are passed on to the other workers, and received from them.
        """
        self._server = server
        self._stats = stats
        self._closings = closings
        closings.forward = self._forward

    def begin(self) -> None:
        """The main thread: report to the supervisor that the server runs; receive its messages."""
        self._channel.send("started")
        threading.Thread(target=self._run, name="wsframe-supervisor", daemon=True).start()

    def request(self, callback: MetricsCallback) -> None:
        """Any thread: request the numbers of the whole service, as of this call or later.

        The callback receives None if the supervisor has ended or too many requests wait. If the
        supervisor hangs, the callback is not called.
        """
        with self._lock:
            full = len(self._waiting) >= MAX_WAITING
            if not full:
                self._waiting.append(callback)
            first = not (full or self._requested)
            if first:
                self._requested, self._waiting = self._waiting, []
        if full:
            callback(None)
        elif first:
            self._channel.send("request")

    def _forward(self, closing: str) -> None:
        """Any thread: send the closing of an identity to the supervisor, for the other workers."""
        self._channel.send("close", closing)

    def report(self) -> None:
        """Any thread: send the supervisor the numbers of this process."""
        self._channel.send("stats", encode_stats(self._stats()))

    # Its own thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._channel.closed:
            for kind, content in self._channel.receive():
                if kind == "collect":
                    self.report()
                elif kind == "check":
                    self._check_loops()
                elif kind == "retire":
                    self._end()
                elif kind == "close":
                    assert self._closings is not None
                    self._closings.receive_message(content)
                else:
                    self._answered(encode(decode_stats(content)))
        self._end()
        while self._requested:
            self._answered(None)

    def _check_loops(self) -> None:
        """Answer as soon as every loop has run a callback."""
        assert self._server is not None
        self._server.call_when_each_loop_turns(partial(self._channel.send, "alive"))

    def _answered(self, metrics: bytes | None) -> None:
        with self._lock:
            callbacks, self._requested = self._requested, self._waiting
            self._waiting = []
        if self._requested:
            self._channel.send("request")
        for callback in callbacks:
            callback(metrics)


def serve(
    channel: Channel,
    stacks: BufferedRandom | None,
    signals: Signals,
    start: StartWorker,
    sockets: Listening,
    settings: Settings,
) -> int:
    """The main thread of a worker: serve until a stop signal, or until its supervisor ends it.

    Args:
        channel: to the supervisor.
        stacks: the file for the stacks of all threads, if the supervisor requests them.
        signals: the counter of SIGTERM.
        start: the function that starts the server.
        sockets: the listening sockets.
        settings: the settings of the server.

    Returns:
        The exit code of the process.
    """
    ended = threading.Event()

    def end() -> None:
        ended.set()
        signals.wake()

    close_in_children(channel)
    if stacks is not None:
        faulthandler.register(DUMP_SIGNAL, stacks, all_threads=True, chain=True)
    link = SupervisorLink(channel, end)
    try:
        server = start(sockets, signals.interrupting, link)
    except Interrupted:
        return 0
    except BaseException as error:  # a SystemExit must be reported, too
        failure = Failure.of(error)
        reason = [failure.message[:MAX_REASON], failure.traceback[-MAX_REASON:]]
        channel.send("failed", reason)
        return 1
    link.begin()
    while not (signals.count or ended.is_set()):
        signals.wait()
    # A successor accepts clients, so a worker that it replaces is not delayed.
    delay = settings.stop_delay if signals.count else 0.0
    server.stop(spread=SPREAD * settings.drain, delay=delay)
    link.report()
    return 0


def child_processes() -> set[BaseProcess]:
    """Return the children of this process that :mod:`multiprocessing` has started."""
    multiprocessing = sys.modules.get("multiprocessing")
    return set() if multiprocessing is None else set(multiprocessing.active_children())


def run_exit_functions(inherited: set[BaseProcess]) -> None:
    """The main thread of a worker: run the exit functions, as the interpreter does at an exit.

    Executors end their threads and processes, daemonic child processes are terminated, and the
    functions that were registered with :mod:`atexit` are called. Other threads end with the
    process; other child processes continue.

    Args:
        inherited: the child processes of the supervisor.
    """
    # Executors of concurrent.futures end here, before multiprocessing's exit function, which waits
    # for their processes.
    for function in reversed(getattr(threading, "_threading_atexits", ())):
        function()
    daemons = [child for child in child_processes() - inherited if child.daemon]
    for child in daemons:
        child.terminate()
    for child in daemons:
        child.join(Timing.child_join_timeout)
    atexit._run_exitfuncs()
