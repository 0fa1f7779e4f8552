"""The statistics of all processes that serve one application, collected by any of them.

Each process listens on a unix socket in the abstract namespace of Linux. The socket's name consists
of the user, the common parent process, and the process itself. A process finds the others in the
system's list of unix sockets. The name disappears with its process, so no file remains. On other
systems each process reports only its own statistics.

Two processes exchange one message in each direction, and end their sides of the connection. A
message is empty, or contains in JSON the statistics, or a list: a message of :class:`Closings`.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from time import monotonic

from ..server.forks import close_in_children, disconnect
from ..server.reports.loggers import log
from ..server.reports.stats import Stats, counters, total
from ..server.timing import Timing
from ..server.workers.channel import decode_stats, encode_stats

SOCKETS = "/proc/net/unix"
# The index of the start time in /proc/PID/stat, counted after the name in parentheses.
START_TIME = 19
CREDENTIALS = struct.Struct("3i")  # struct ucred: the process, user and group
BACKLOG = 64
READ_SIZE = 64 * 1024
MAX_MESSAGE = 1 << 20
SHORTEST_WAIT = 0.001  # seconds; a time-out of 0 would make the socket non-blocking


class Siblings:
    """The other processes that serve the same application as this one.

    A process that exits sends its counters to another process, so no total decreases. The counters
    of a process that is killed are lost.

    Args:
        number: the number of the application in each of these processes.
        stats: a function that returns the statistics of this process.
        timing: the durations, with the time to wait for other processes.
        receive_closing: a function that receives the closing of an identity, as a message.
    """

    def __init__(
        self,
        number: int,
        stats: Callable[[], Stats],
        timing: Timing,
        receive_closing: Callable[[bytes], object] = lambda message: None,
    ) -> None:
        self._number = number
        self._stats = stats
        self._receive_closing = receive_closing
        self._timeout = timing.stats_timeout
        self.after_fork()

    def after_fork(self) -> None:
        """The constructor, the child of a fork, and after an end: begin without a socket."""
        self._listener: socket.socket | None = None
        self._tried = False  # True after the first attempt to listen
        self._lock = threading.Lock()  # protects the attributes below
        self._past = Stats()  # the counters of processes that have exited

    def begin(self) -> None:
        """Any thread: listen, so that other processes find this one; a second call does nothing."""
        if not hasattr(socket, "SO_PEERCRED"):
            return
        with self._lock:
            first, self._tried = not self._tried, True
        if not first:
            return
        sock = close_in_children(socket.socket(socket.AF_UNIX))
        try:
            sock.bind(f"\0{self._group()}{os.getpid()}")
            sock.listen(BACKLOG)
            threading.Thread(
                target=self._serve, args=(sock,), name="wsframe-metrics", daemon=True
            ).start()
        except (OSError, RuntimeError):  # the socket's name is in use, or no thread can be started
            sock.close()
            return
        self._listener = sock

    def collect(self) -> Stats:
        """Any thread: return the statistics of all processes.

        A process that does not answer within a second is counted as missing.
        """
        others = self._ask_all(b"")
        several = [self._own(), *(stats for stats in others if stats is not None)]
        return replace(total(several), missing_processes=others.count(None))

    def send_closing(self, message: str) -> None:
        """Any thread: send the closing of an identity to the other processes.

        The call waits for the processes for at most a second. It logs the number of processes
        without an answer.
        """
        missing = self._ask_all(message.encode()).count(None)
        if missing:
            log.error(
                "%d processes have not received the closing of an identity, because they did not "
                "answer within %g s; close the identity again",
                missing,
                self._timeout,
            )

    def _ask_all(self, message: bytes) -> list[Stats | None]:
        """Send a message to all other processes; return each answer, or None."""
        deadline = monotonic() + self._timeout
        with ExitStack() as stack:
            asked = []
            for name in self._others():
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                asked.append(sock if _ask(sock, name, message, deadline) else None)
            return [None if sock is None else _answer(sock, deadline) for sock in asked]

    def end(self) -> None:
        """Any thread: send the counters to another process, and stop listening."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        disconnect(listener)
        deadline = monotonic() + self._timeout
        message = _encode(counters(self._own()))
        for name in self._others():
            with socket.socket(socket.AF_UNIX) as sock:
                if _ask(sock, name, message, deadline):
                    _answer(sock, deadline)
                    return  # if a second process received the counters, they might be counted twice

    def _own(self) -> Stats:
        with self._lock:
            return total([self._past, self._stats()])

    def _group(self) -> str:
        """Return the common prefix of these processes' socket names."""
        if not hasattr(os, "getuid"):
            return ""
        parent, started = os.getppid(), ""
        with suppress(OSError), open(f"/proc/{parent}/stat", "rb") as file:
            started = file.read().rpartition(b")")[2].split()[START_TIME].decode()
        return f"wsframe/{os.getuid()}/{parent}-{started}/{self._number}/"

    def _others(self) -> Iterator[str]:
        """Yield the names of the sockets of the other processes."""
        group = self._group()
        pattern = re.compile(rf" @{re.escape(group)}(\d+)$")
        processes = set()
        with suppress(OSError), open(SOCKETS, encoding="utf-8", errors="replace") as file:
            processes = {match[1] for line in file if (match := pattern.search(line.rstrip("\n")))}
        return (f"{group}{process}" for process in sorted(processes - {str(os.getpid())}))

    # The methods of the listening thread
    # ---------------------------------------------------------------------------

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:  # the listening socket was closed, because the process exits
                return
            with sock, suppress(OSError, TypeError, ValueError):
                if _is_ours(sock):
                    self._reply(sock)

    def _reply(self, sock: socket.socket) -> None:
        """Answer with the statistics, after processing counters or a closing in the message."""
        message = _receive(sock, monotonic() + self._timeout)
        if message.startswith(b"["):
            self._receive_closing(message)
        elif message:
            with self._lock:
                self._past = total([self._past, _decode(message)])
        sock.sendall(_encode(self._own()))


def _ask(sock: socket.socket, name: str, message: bytes, deadline: float) -> bool:
    """Send a message to a process; return False if it has exited or belongs to another user."""
    try:
        sock.settimeout(max(SHORTEST_WAIT, deadline - monotonic()))
        sock.connect(f"\0{name}")
        if not _is_ours(sock):
            return False
        sock.sendall(message)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    return True


def _answer(sock: socket.socket, deadline: float) -> Stats | None:
    """Return the statistics that a process sends; None if they are late or invalid."""
    try:
        return _decode(_receive(sock, deadline))
    except (OSError, TypeError, ValueError):
        return None


def _receive(sock: socket.socket, deadline: float) -> bytes:
    """Receive a message, up to the end of the data.

    Raises:
        OSError: the connection has failed, or the message does not end in time.
    """
    message = b""
    while len(message) < MAX_MESSAGE:
        sock.settimeout(max(SHORTEST_WAIT, deadline - monotonic()))
        data = sock.recv(READ_SIZE)
        if not data:
            return message
        message += data
    raise OSError("a message of another process exceeds the size limit")


def _is_ours(sock: socket.socket) -> bool:
    """Return True if the other end belongs to the same user; any user can listen on a name."""
    peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return bool(CREDENTIALS.unpack(peer)[1] == os.getuid())


def _encode(stats: Stats) -> bytes:
    return json.dumps(encode_stats(stats)).encode()


def _decode(message: bytes) -> Stats:
    """Return the statistics in a message.

    Raises:
        ValueError, TypeError: the message does not contain valid statistics.
    """
    try:
        plain = json.loads(message)
    except RecursionError:
        raise ValueError("the statistics are nested too deeply") from None
    if not isinstance(plain, dict):
        raise ValueError("the statistics are not a JSON object")
    return decode_stats(plain)
