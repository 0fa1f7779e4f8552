"""The functions of one round of the loop in Python, equivalent to those of ``_rounds.pyx``.

The loop uses these functions where the compiled ones do not exist or cannot be used: without a
compiler, without epoll, and in a process that gevent or eventlet has patched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeAlias

from wsframe._pure import frame_head
from wsframe.frames import BINARY, TEXT
from wsframe.kernels import encode_frame, take_messages

__all__ = [
    "BROKEN",
    "COPY_LIMIT",
    "FAILED",
    "FINISHED",
    "GAP",
    "LARGE_FRAME",
    "LOST",
    "MAX_PIECES",
    "OVER",
    "RECORD",
    "SEAL_AT_ONCE",
    "UNTOUCHED",
    "Incomplete",
    "IncompleteBlock",
    "Item",
    "Received",
    "Resumable",
    "Signal",
    "Wire",
    "pieces_of",
    "receive",
    "run_turns",
    "send",
    "send_block",
    "send_pieces",
    "size_of",
]

# A queued item: a text or binary message without its header, or data that is sent unchanged.
Item: TypeAlias = str | tuple[bytes] | bytes
# A session, the decoded messages, and the remaining undecoded bytes, if any.
Received: TypeAlias = tuple[Any, list[str | bytes], memoryview | None]
# A connection that the caller must serve, the items taken from its queue or their TLS records, and
# the number of bytes sent. None instead of items if no item was taken.
Incomplete: TypeAlias = tuple[Any, Sequence[Item] | bytes | None, int]
# The index of a connection in the list, the items taken from its queue, and the number of bytes
# sent.
IncompleteBlock: TypeAlias = tuple[int, Sequence[Item] | bytes | None, int]

# The poller's events for a readable socket, and for a failed receive call.
READABLE = 1
BROKEN = 1 << 30
# The maximum number of ready files in one round, and of bytes after which no more data is received.
MAX_READY = 64
MAX_BYTES = 1 << 20
# The reasons that :func:`run_turns` returns.
OVER, UNTOUCHED, FINISHED, LOST, FAILED = range(5)
# The size in bytes from which frames that are queued within a turn are counted.
LARGE_FRAME = 4 * 1024
# Payloads up to this size are copied and sent together; longer payloads are sent without a copy.
COPY_LIMIT = 4096
# The maximum number of pieces in one system call; every system accepts 16, and Linux accepts 1,024.
MAX_PIECES = 64
# The maximum number of bytes that are encrypted for one client before the loop serves others.
SEAL_AT_ONCE = 128 * 1024
# The maximum size of the data in a record of TLS (RFC 8446 section 5.1).
RECORD = 16 * 1024
# The distance between received records and the place of their decrypted data. So the data of a
# record that began in an earlier read does not overwrite a record that is still encrypted.
GAP = RECORD + 2048
FIN = 0x80


class Files(Protocol):
    """The method of an epoll object that :func:`receive` calls."""

    def poll(self, timeout: float | None, at_most: int, /) -> Iterable[tuple[int, int]]:
        """Loop owner: wait for at most ``timeout`` seconds; return ready files and their events."""


class Wire:
    """The fields of one connection that the functions of this module use.

    Attributes:
        fd: the descriptor of the socket; -1 for a closed one.
        sock: the socket.
        tls: the TLS of the connection, as :class:`wsframe.server.sockets.records.Records`; or None.
        session: the recipient of received messages.
        limit: the maximum size of a message, in bytes, if :func:`receive` may decode complete
            messages; -1 if the caller must receive.
        out: the queued items, in order. A str or a 1-tuple of bytes is a message, whose header is
            added when it is sent. Bytes are sent as they are.
        clear: True if :func:`send` may send queued items: no data is unsent, and no close is near.
        in_turn: True while the owner runs user code of this connection; the owner flushes
            afterwards. False while that code runs in another thread, because that thread must wait
            for a slow client.
        stop_turn: True if the turn should end early, because too much is unsent or the connection
            ends.
        waiting: the number of threads that wait until data was sent.
        large: the bytes of large messages that were queued in the current turn.
        bytes_in: the number of bytes received.
        messages_in: the number of messages received.
        bytes_out: the number of bytes sent.
        frames_out: the number of items taken from ``out``, except the head of an answer.
    """

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "clear",
        "fd",
        "frames_out",
        "in_turn",
        "large",
        "limit",
        "messages_in",
        "out",
        "session",
        "sock",
        "stop_turn",
        "tls",
        "waiting",
    )

    def __init__(self) -> None:
        self.fd: int = -1
        self.sock: Any = None
        self.tls: Any = None
        self.session: Any = None
        self.limit: int = -1
        self.out: list[Item] = []
        self.clear: bool = True
        self.in_turn: bool = False
        self.stop_turn: bool = False
        self.waiting: int = 0
        self.large: int = 0
        self.bytes_in: int = 0
        self.messages_in: int = 0
        self.bytes_out: int = 0
        self.frames_out: int = 0

    def queue_message(self, message: object) -> int:
        """Any thread: queue an immutable message without its header.

        Returns:
            0 if the message will be sent at the end of the turn; otherwise the size of its frame in
            bytes, which the caller passes to ``schedule_flush``; -1 if the message was not queued,
            because it must be encoded.
        """
        item: Item
        if type(message) is str and message.isascii():
            item = message
        elif type(message) is bytes:
            item = (message,)
        else:
            return -1
        self.out.append(item)
        size = size_of(item)
        return 0 if self.in_turn and size <= LARGE_FRAME else size


class Resumable:
    """The fields of one task that :func:`run_turns` uses.

    Attributes:
        peer: the connection, a :class:`Wire`.
        profile: the blocking profile of the route.
        context: the context variables of the handler.
        generator: the handler, if a message resumes it; None for other tasks. The compiled function
            calls the method ``after_resume`` of a task with a generator; see
            :class:`wsframe.server.sessions.generator.GeneratorSession`.
        state: the state of the task.
        needs_thread: True if the next turn must begin in a thread.
        needs_finish: True if the task must be finished after its turn.
    """

    __slots__ = (
        "context",
        "generator",
        "needs_finish",
        "needs_thread",
        "peer",
        "profile",
        "state",
    )

    def __init__(self) -> None:
        self.peer: Any = None
        self.profile: Any = None
        self.context: Any = None
        self.generator: Any = None
        self.state: Any = None
        self.needs_thread: bool = False
        self.needs_finish: bool = False


class Signal:
    """A signal for which one thread waits. A wait ends when the signal is set, and clears it."""

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()

    @property
    def is_set(self) -> bool:
        """Any thread: True if the signal is set, so that the next wait ends at once."""
        return not self._queue.empty()

    def set(self) -> None:
        """Any thread: set the signal, which ends the current or the next wait."""
        if not self.is_set:
            self._queue.put(None)

    def wait(self, timeout: float | None, following: Signal | None = None) -> bool:
        """One thread: set the following signal, if any, and wait for this signal.

        The compiled method sets the following signal after it has released the GIL. Otherwise the
        woken thread would wait for the GIL, and the system would switch between both.

        Args:
            timeout: the longest time to wait, in seconds; None for no limit. following: the signal
                of another thread.

        Returns:
            False after a time-out.
        """
        if following is not None:
            following.set()
        try:
            self._queue.get(timeout=timeout)
        except Empty:
            return False
        return True


def receive(
    files: Files,
    wires: Sequence[Wire | None],
    buffer: bytearray,
    timeout: float | None,
) -> tuple[list[Received], list[tuple[int, int]]]:
    """Loop owner: poll; receive once from each ready socket, and decode complete messages.

    Args:
        files: the files to wait for: an epoll object, or an object with its method.
        wires: the connections by descriptor; None for other files.
        buffer: the memory for received data; half of it must be free for each read. If many clients
            have sent much data, a round does not receive from all of them.
        timeout: the longest time to wait, in seconds; None for no limit.

    Returns:
        The connections from which data was received, and the other ready files with their events:
        connections without a limit, with other events or at the end of their data, and all other
        kinds of files. A connection with TLS that must be read again is among both. The views of
        ``buffer`` are valid until the next call.
    """
    received: list[Received] = []
    ready: list[tuple[int, int]] = []
    view = memoryview(buffer)
    half = len(buffer) // 2
    used = total = 0
    for fd, events in files.poll(timeout, MAX_READY):
        room = used <= half and total < MAX_BYTES
        wire = wires[fd] if events == READABLE and room and fd < len(wires) else None
        tls = None if wire is None else wire.tls
        if wire is None or wire.limit < 0 or (tls and tls.more):
            ready.append((fd, events))
            continue
        try:
            size = wire.sock.recv_into(view[used + (GAP if tls else 0) : used + half])
        except (BlockingIOError, InterruptedError):
            continue
        except OSError:
            ready.append((fd, BROKEN))
            continue
        if not size:
            ready.append((fd, READABLE))
            continue
        wire.bytes_in += size
        if tls:
            size = tls.decrypt(view[used : used + half], GAP, GAP + size, 0, half)
            if tls.more:
                ready.append((fd, READABLE))
            if not size:
                continue
        messages: list[str | bytes] = []
        data = view[used : used + size]
        left = take_messages(data, 0, messages, wire.limit, True)
        wire.messages_in += len(messages)
        total += size
        if left:
            used += size  # the caller still uses this memory for the rest of the data
            received.append((wire.session, messages, data[size - left :]))
        else:
            received.append((wire.session, messages, None))
    return received, ready


def run_turns(round_: Any, ownership: Any, idle: object, most: int) -> tuple[int, Any]:
    """Loop owner: run the turns of the common kind for the received messages.

    A turn of the common kind resumes a waiting generator on the loop. The compiled function runs
    such turns. This Python function runs none, and its caller runs the turns of all kinds.

    Args:
        round_: the round; its ``received`` is advanced, and its ``answered`` is extended.
        ownership: the ownership of the caller.
        idle: the state of a task that waits.
        most: the maximum number of messages in one turn.

    Returns:
        The reason why it has returned, and a value: ``OVER``, because no message is left;
        ``UNTOUCHED`` and the messages of a session, for the caller; ``FINISHED`` and a task whose
        turn has ended, for the rest of its end; ``FAILED``, the task and an internal error in its
        turn; ``LOST``, the task whose turn has lost the loop, and an internal error or None.
    """
    entry = next(round_.received, None)
    return (OVER, None) if entry is None else (UNTOUCHED, entry)


def send(connections: Iterable[Any], scratch: bytearray | None = None) -> list[Incomplete]:
    """Loop owner: send the queued items of each connection, with one system call per connection.

    Args:
        connections: the connections; one may be present several times, or have no queued items.
        scratch: memory for the compiled version of this function; this version ignores it.

    Returns:
        The connections that the caller must process further. Either the socket accepted only a part
        of the data, or a thread waits until data is sent. Otherwise nothing was sent, because older
        data is unsent, a close is near, the TLS data is too large, or an error occurred.
    """
    incomplete: list[Incomplete] = []
    for wire in connections:
        queued = len(wire.out)  # other threads may append to ``out`` meanwhile
        if not queued:
            continue
        if not wire.clear:
            incomplete.append((wire, None, 0))
            continue
        queued_items = wire.out[:queued]
        items = _sealed(wire.tls, queued_items) if wire.tls else queued_items
        if items is None:
            incomplete.append((wire, None, 0))
            continue
        del wire.out[:queued]
        wire.frames_out += queued
        unsent = _send_items(wire, items)
        if unsent is not None:
            incomplete.append((wire, *unsent))
    return incomplete


def send_block(connections: Iterable[Any], block: bytes, count: int) -> list[IncompleteBlock]:
    """Loop owner: send the same data to several connections that have no unsent data.

    Args:
        connections: the connections, each once.
        block: the data.
        count: the number of messages or events in the block.

    Returns:
        The connections that the caller must serve, as for :func:`send`, with their indexes.
    """
    incomplete: list[IncompleteBlock] = []
    for number, wire in enumerate(connections):
        if not wire.clear or wire.out or wire.tls:
            incomplete.append((number, None, 0))
            continue
        wire.frames_out += count
        unsent = _send_items(wire, [block])
        if unsent is not None:
            incomplete.append((number, *unsent))
    return incomplete


def _sealed(tls: Any, items: list[Item]) -> bytes | None:
    """Return the records of the items; None if the caller must serve the connection."""
    if sum(map(size_of, items)) > SEAL_AT_ONCE:
        return None
    try:
        records: bytes = tls.seal(memoryview(b"".join(pieces_of(items))))
    except OSError:  # the caller encrypts again, and handles the error
        return None
    return records


def _send_items(
    wire: Wire, items: Sequence[Item] | bytes
) -> tuple[Sequence[Item] | bytes, int] | None:
    """Send items or records; return them if the caller must continue, and the number of bytes."""
    wire.large = 0
    pieces = [items] if isinstance(items, bytes) else pieces_of(items)
    try:
        sent = send_pieces(wire.sock, pieces)
    except OSError:  # the caller sends again, and handles the error
        sent = 0
    wire.bytes_out += sent
    if sent < sum(map(len, pieces)):
        return items, sent
    return ((), 0) if wire.waiting else None


def send_pieces(sock: Any, pieces: Sequence[bytes | memoryview], *flags: int) -> int:
    """Loop owner: send the first pieces in one system call; return the number of bytes sent.

    Args:
        sock: the socket.
        pieces: the data.
        flags: the flags of the system call, if any; TLS has none.

    Raises:
        OSError: nothing was sent.
    """
    sent: int
    if len(pieces) == 1:
        sent = sock.send(pieces[0], *flags)
    elif hasattr(sock, "sendmsg"):
        sent = sock.sendmsg(pieces[:MAX_PIECES], (), *flags)
    else:  # Windows
        sent = sock.send(b"".join(pieces), *flags)
    return sent


def pieces_of(items: Iterable[Item]) -> list[bytes | memoryview]:
    """Any thread: return the data of items: short payloads are joined, long ones not copied."""
    pieces: list[bytes | memoryview] = []
    short: list[bytes] = []
    for item in items:
        if type(item) is str:
            data = encode_frame(TEXT, item)
        elif type(item) is tuple:
            (data,) = item
            short.append(frame_head(FIN | BINARY, 0, len(data)))
        else:
            assert isinstance(item, bytes)
            data = item
        if len(data) <= COPY_LIMIT:
            short.append(data)
            continue
        if short:
            pieces.append(b"".join(short))
            short.clear()
        pieces.append(data)
    if short:
        pieces.append(b"".join(short))
    return pieces


def size_of(item: Item) -> int:
    """Any thread: return the number of bytes of an item on the wire."""
    if isinstance(item, bytes):
        return len(item)
    size = len(item) if type(item) is str else len(item[0])
    return size + (2 if size < 126 else 4 if size < 65536 else 10)
