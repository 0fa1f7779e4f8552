"""A worker: what its process does beside serving, and its line to the supervisor."""

from __future__ import annotations

import atexit
import faulthandler
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import BufferedRandom
from typing import TYPE_CHECKING, Protocol, TypeAlias

from ..forks import close_in_children
from ..reports.stats import Stats, encode
from ..signals import Interrupted, Signals
from ..sockets.shutdown import SPREAD
from ..timing import Timing
from .channel import Channel, decode_stats, encode_stats

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from ..server import Server

# Writes the stacks of all threads, and ends the process: a signal that applications hardly use.
DUMP_SIGNAL: int = getattr(signal, "SIGRTMAX", getattr(signal, "SIGQUIT", 0))
# How many may wait for the numbers of the service at once.
MOST_WAITING = 1000
# The longest reason that a worker gives for not serving.
LONGEST_REASON = 1 << 16

#: Is called with the metrics of the service; with None if they cannot be had.
Tell: TypeAlias = "Callable[[bytes | None], object]"


class Start(Protocol):
    """Starts the server of a worker."""

    def __call__(
        self, interrupting: Callable[[], AbstractContextManager[None]], link: SupervisorLink
    ) -> Server:
        """The main thread: start it.

        Args:
            interrupting: entered around the application's code, which a stop signal then ends.
            link: has to know of the server.
        """


class SupervisorLink:
    """A worker's line to its supervisor.

    Args:
        channel: to the supervisor.
        ended: called, in the link's thread, when the supervisor has ended.
    """

    def __init__(self, channel: Channel, ended: Callable[[], object]) -> None:
        self._channel = channel
        self._ended = ended
        self._lock = threading.Lock()  # for these two
        self._asking: list[Tell] = []  # they wait for the answer that is on its way
        self._waiting: list[Tell] = []  # and they for the next one
        self._server: Server | None = None
        self._stats: Callable[[], Stats] = Stats

    def attach(self, server: Server, stats: Callable[[], Stats]) -> None:
        """The main thread: the server runs, and these are the numbers of this process."""
        self._server = server
        self._stats = stats

    def begin(self) -> None:
        """The main thread: tell the supervisor that the server runs, and listen to it."""
        self._channel.send("up")
        threading.Thread(target=self._run, name="wsframe-supervisor", daemon=True).start()

    def ask(self, tell: Tell) -> None:
        """Any thread: call ``tell`` with the numbers of the whole service, as they are from now on.

        ``tell`` is called with None if the supervisor has ended, and never if it hangs.
        """
        with self._lock:
            full = len(self._waiting) >= MOST_WAITING
            if not full:
                self._waiting.append(tell)
            first = not (full or self._asking)
            if first:
                self._asking, self._waiting = self._waiting, []
        if full:
            tell(None)
        elif first:
            self._channel.send("ask")

    def report(self) -> None:
        """Any thread: send the supervisor the numbers of this process."""
        self._channel.send("report", encode_stats(self._stats()))

    # Its own thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._channel.ended:
            for kind, content in self._channel.receive():
                if kind == "report":
                    self.report()
                elif kind == "turn":
                    self._have_loops_turn()
                else:
                    self._answered(encode(decode_stats(content)))
        self._ended()
        while self._asking:
            self._answered(None)

    def _have_loops_turn(self) -> None:
        """Answer when every loop has called what it is given here."""
        assert self._server is not None
        left = [None] * len(self._server.loops)

        def turned() -> None:
            left.pop()
            if not left:
                self._channel.send("turned")

        for loop in self._server.loops:
            loop.call_soon(turned)

    def _answered(self, text: bytes | None) -> None:
        with self._lock:
            told, self._asking = self._asking, self._waiting
            self._waiting = []
        if self._asking:
            self._channel.send("ask")
        for tell in told:
            tell(text)


def serve(
    channel: Channel, stacks: BufferedRandom | None, signals: Signals, start: Start, drain: float
) -> int:
    """The main thread of a worker: serve until it is told to stop or has no supervisor any more.

    Args:
        channel: to the supervisor.
        stacks: where the stacks of all threads are written when the supervisor wants that.
        signals: counts SIGTERM.
        start: starts the server.
        drain: how long it has to stop, in seconds.

    Returns:
        The exit code of the process.
    """
    orphaned = threading.Event()

    def be_orphaned() -> None:
        orphaned.set()
        signals.wake()

    close_in_children(channel)
    if stacks is not None:
        faulthandler.register(DUMP_SIGNAL, stacks, all_threads=True, chain=True)
    link = SupervisorLink(channel, be_orphaned)
    try:
        server = start(signals.interrupting, link)
    except Interrupted:
        return 0
    except BaseException as error:  # SystemExit, too
        words = str(error) if isinstance(error, SystemExit) else traceback.format_exc()
        channel.send("failed", words.strip()[-LONGEST_REASON:] or "SystemExit")
        return 1
    link.begin()
    while not (signals.count or orphaned.is_set()):
        signals.wait()
    server.stop(spread=SPREAD * drain)
    link.report()
    return 0


def child_processes() -> set[BaseProcess]:
    """The child processes that :mod:`multiprocessing` knows of, if the application uses it."""
    multiprocessing = sys.modules.get("multiprocessing")
    return set() if multiprocessing is None else set(multiprocessing.active_children())


def run_exit_functions(inherited: set[BaseProcess]) -> None:
    """The main thread of a worker: do what the interpreter does for a process that ends.

    Executors end their threads and processes, daemonic child processes are terminated, and what was
    registered with :mod:`atexit` is called. Threads and child processes of other kinds go on, or
    end with the process.

    Args:
        inherited: the child processes of the supervisor.
    """
    # concurrent.futures registers there how its executors end, before multiprocessing's own exit
    # function waits for their processes.
    for function in reversed(getattr(threading, "_threading_atexits", ())):
        function()
    daemons = [child for child in child_processes() - inherited if child.daemon]
    for child in daemons:
        child.terminate()
    for child in daemons:
        child.join(Timing.child_join_timeout)
    atexit._run_exitfuncs()
