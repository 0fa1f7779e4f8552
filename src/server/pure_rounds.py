"""The system calls of one round of the loop, in Python: the counterparts of ``_rounds.pyx``.

The loop uses them where the compiled functions do not exist or cannot be used: without a compiler,
without epoll, and in a process that is patched by gevent or eventlet. Output uses :func:`send` for
TLS, too. The compiled functions return to their caller what these functions handle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeAlias

from wsframe._pure import frame_head
from wsframe.frames import BINARY, TEXT
from wsframe.kernels import encode_frame, take_messages

__all__ = [
    "BROKEN",
    "COPY_LIMIT",
    "Incomplete",
    "IncompleteBlock",
    "Item",
    "Received",
    "Wire",
    "pieces_of",
    "queue_message",
    "receive",
    "send",
    "send_block",
    "send_pieces",
    "size_of",
]

# A queued text or binary message without its header, or data that is sent as it is.
Item: TypeAlias = str | tuple[bytes] | bytes
# A session, the messages received for it, and the data after these messages, if any.
Received: TypeAlias = tuple[Any, list[str | bytes], memoryview | None]
# A connection that its caller must serve, the items taken from its queue, and how many of their
# bytes were sent. None instead of the items if nothing was taken.
Incomplete: TypeAlias = tuple[Any, Sequence[Item] | None, int]
# The same with the number of the connection in the list.
IncompleteBlock: TypeAlias = tuple[int, Sequence[Item] | None, int]

# A poller's event for each of these: the socket is readable; the receive call has failed.
READABLE = 1
BROKEN = 1 << 30
# The maximum number of ready files in one round, and the bytes after which no more is received.
MAX_READY = 64
MAX_BYTES = 1 << 20
# Shorter payloads are copied to be sent with others; longer ones are sent from where they are.
COPY_LIMIT = 4096
# The maximum number of pieces in one system call; systems accept at least 16, and Linux 1,024.
MAX_PIECES = 64
FIN = 0x80


class Files(Protocol):
    """The method of an epoll object that :func:`receive` calls."""

    def poll(self, timeout: float | None, at_most: int, /) -> Iterable[tuple[int, int]]:
        """Owner: return files that are ready, with their events, after at most these seconds."""


class Wire:
    """The fields of one connection that the functions of this module use.

    Attributes:
        fd: the descriptor of a plain socket; -1 for TLS, and for a closed socket.
        sock: the socket.
        session: the recipient of received messages.
        limit: the maximum size of a message, in bytes, if complete messages may be received here;
            -1 if the caller must receive.
        out: the queued items, in order. A str or a 1-tuple of bytes is a message, whose header is
            added when it is sent. Bytes are sent as they are.
        clear: True if queued items may be sent here: nothing is unsent, and the end is not near.
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
        "large",
        "limit",
        "messages_in",
        "out",
        "session",
        "sock",
        "waiting",
    )

    def __init__(self) -> None:
        self.fd = -1
        self.sock: Any = None
        self.session: Any = None
        self.limit = -1
        self.out: list[Item] = []
        self.clear = True
        self.waiting = 0
        self.large = 0
        self.bytes_in = 0
        self.messages_in = 0
        self.bytes_out = 0
        self.frames_out = 0


def queue_message(out: list[Item], message: object) -> int:
    """Any thread: queue an immutable message without its header.

    Returns:
        The size of its frame in bytes; -1 if nothing was queued, because it must be encoded.
    """
    item: Item
    if type(message) is str and message.isascii():
        item = message
    elif type(message) is bytes:
        item = (message,)
    else:
        return -1
    out.append(item)
    return size_of(item)


def receive(
    files: Files,
    wires: Sequence[Wire | None],
    buffer: bytearray,
    timeout: float | None,
) -> tuple[list[Received], list[tuple[int, int]]]:
    """Owner: wait for files that are ready; receive once from each, and take complete messages.

    Args:
        files: the files to wait for: an epoll object, or an object with its method.
        wires: the connections by descriptor; None for other files.
        buffer: the memory for received data; half of it must be free for each read. A round does
            not receive from all connections if many have sent much.
        timeout: the longest time to wait, in seconds; None for no limit.

    Returns:
        The connections from which data was received, and the other ready files with their events:
        connections without a limit, with other events or at the end of their data, and all other
        kinds of files. The views of ``buffer`` are valid until the next call.
    """
    received: list[Received] = []
    ready: list[tuple[int, int]] = []
    view = memoryview(buffer)
    half = len(buffer) // 2
    used = total = 0
    for fd, events in files.poll(timeout, MAX_READY):
        room = used <= half and total < MAX_BYTES
        wire = wires[fd] if events == READABLE and room and fd < len(wires) else None
        if wire is None or wire.limit < 0:
            ready.append((fd, events))
            continue
        try:
            size = wire.sock.recv_into(view[used : used + half])
        except (BlockingIOError, InterruptedError):
            continue
        except OSError:
            ready.append((fd, BROKEN))
            continue
        if not size:
            ready.append((fd, READABLE))
            continue
        wire.bytes_in += size
        messages: list[str | bytes] = []
        data = view[used : used + size]
        left = take_messages(data, 0, messages, wire.limit, True)
        wire.messages_in += len(messages)
        total += size
        if left:
            used += size  # the memory is needed until the caller has processed the rest
            received.append((wire.session, messages, data[size - left :]))
        else:
            received.append((wire.session, messages, None))
    return received, ready


def send(connections: Iterable[Any], scratch: bytearray | None = None) -> list[Incomplete]:
    """Owner: send the queued items of each connection, in one system call each.

    Args:
        connections: the connections; one may be present several times, or have no queued items.
        scratch: memory that the compiled function uses.

    Returns:
        The connections that the caller must serve: they accepted only a part, or a thread waits for
        them, or they cannot be served here.
    """
    incomplete: list[Incomplete] = []
    for wire in connections:
        queued = len(wire.out)  # other threads may append meanwhile
        if not queued:
            continue
        if not wire.clear:
            incomplete.append((wire, None, 0))
            continue
        items = wire.out[:queued]
        del wire.out[:queued]
        wire.frames_out += queued
        unsent = _send_items(wire, items)
        if unsent is not None:
            incomplete.append((wire, *unsent))
    return incomplete


def send_block(connections: Iterable[Any], block: bytes, count: int) -> list[IncompleteBlock]:
    """Owner: send the same data to each connection that has nothing else to send.

    Args:
        connections: the connections, each once.
        block: the data.
        count: the number of messages or events in it.

    Returns:
        The connections that the caller must serve, as for :func:`send`, by their number.
    """
    incomplete: list[IncompleteBlock] = []
    for number, wire in enumerate(connections):
        if not wire.clear or wire.out:
            incomplete.append((number, None, 0))
            continue
        wire.frames_out += count
        unsent = _send_items(wire, [block])
        if unsent is not None:
            incomplete.append((number, *unsent))
    return incomplete


def _send_items(wire: Wire, items: list[Item]) -> tuple[Sequence[Item], int] | None:
    """Send items; return them if the caller must continue, with the number of bytes sent."""
    wire.large = 0
    pieces = pieces_of(items)
    try:
        sent = send_pieces(wire.sock, pieces)
    except OSError:  # the caller sends again, and handles the error
        sent = 0
    wire.bytes_out += sent
    if sent < sum(map(len, pieces)):
        return items, sent
    return ((), 0) if wire.waiting else None


def send_pieces(sock: Any, pieces: Sequence[bytes | memoryview]) -> int:
    """Owner: send the first pieces in one system call; return the number of bytes sent.

    Raises:
        OSError: nothing was sent.
    """
    sent: int
    if len(pieces) == 1:
        sent = sock.send(pieces[0])
    elif hasattr(sock, "sendmsg"):
        sent = sock.sendmsg(pieces[:MAX_PIECES])
    else:  # Windows
        sent = sock.send(b"".join(pieces))
    return sent


def pieces_of(items: Iterable[Item]) -> list[bytes | memoryview]:
    """Any thread: return the data of these items: short ones joined, long payloads uncopied."""
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
