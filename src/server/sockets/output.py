"""Output: the frames that are queued for one client, and back-pressure."""

from __future__ import annotations

import socket
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from wsframe.progress import Progress

from ..pure_rounds import (
    COPY_LIMIT,
    LARGE_FRAME,
    MAX_PIECES,
    Item,
    pieces_of,
    send,
    send_pieces,
    size_of,
)
from ..rounds import Wire
from ..timing import waitable
from .session import NO_SESSION, Session
from .states import CLOSED, FINISHING, OPEN, SEALED, PeerState

if TYPE_CHECKING:
    import threading

    from ..handoff.loop import Loop


# The limit on unsent bytes. Above it, a connection is not read, and threads that send to it wait.
HIGH_WATER = 256 * 1024
# The number of queued frames up to which the queued bytes are not counted, if no frame is large.
FEW_FRAMES = 64
# The flag for the last data before the server's side is shut down, if the system has such a flag.
MORE: tuple[int, ...] = (socket.MSG_MORE,) if hasattr(socket, "MSG_MORE") else ()


class Transport(typing.Protocol):
    """The methods of a non-blocking socket that a peer uses. Only the owner calls these methods."""

    def fileno(self) -> int: ...

    def recv_into(self, buffer: memoryview, nbytes: int = 0, /) -> int: ...

    def send(self, data: bytes | memoryview, /) -> int: ...

    def shutdown(self, how: int, /) -> None: ...

    def getsockopt(self, level: int, name: int, /) -> int: ...

    def setsockopt(self, level: int, name: int, value: bytes, /) -> None: ...

    def close(self) -> None: ...


class Group(typing.Protocol):
    """The part of :class:`Clients` that output uses."""

    loop: Loop
    sendable: threading.Condition


class Output(Wire, Progress, ABC):
    """The sending half of a connection. Frames are queued by any thread, and sent by the owner.

    Args:
        clients: the connections of its loop.
        sock: the client's socket.

    Attributes:
        clients: the connections of its loop.
        loop: the loop of the connection.
        out: the queued frames, in order. The owner appends and flushes; other threads call
            :meth:`send`.
        next_check: the time of the next check for progress, on the loop's clock.
        notify_when_sent: True to call the session's ``sent_all`` once, when all data has been sent.
        bytes_out: the number of bytes sent.
        frames_out: the number of frames taken from ``out``, except the head of an answer.
        state: the state of the connection, whose number never decreases.
    """

    __slots__ = (
        *Progress.FIELDS,
        "_blocked",
        "_flush_scheduled",
        "_unsent",
        "_unsent_size",
        "clients",
        "loop",
        "next_check",
        "notify_when_sent",
        "state",
    )

    bytes_out: int
    waiting: int

    def __init__(self, clients: Group, sock: Transport) -> None:
        super().__init__()
        self.begin()
        self.clients: Group = clients
        self.loop: Loop = clients.loop
        self.next_check: float = 0.0
        self.state: PeerState = OPEN
        self.notify_when_sent: bool = False
        self.sock: Transport = sock
        self.session: Session = NO_SESSION
        # The data that the socket has not accepted. Connections without unsent data share the empty
        # tuple.
        self._unsent: tuple[bytes | memoryview, ...] = ()
        self._unsent_size = 0
        self._blocked = False  # True if the last send was not accepted completely
        self._flush_scheduled = False

    # The connection ---------------------------------------------------------------------------

    @abstractmethod
    def abort(self) -> None:
        """Loop owner: close the socket now."""

    @abstractmethod
    def cut_off(self, why: str) -> None:
        """Loop owner: close the socket now, because the client is too slow; log the reason."""

    @abstractmethod
    def _shut_write(self) -> None:
        """Shut down the server's side, because all data was sent."""

    @abstractmethod
    def _update_interest(self) -> None:
        """Poll the socket for the events that can be handled now."""

    # Loop owner -------------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Loop owner: True if more than ``HIGH_WATER`` bytes are unsent."""
        return self._unsent_size > HIGH_WATER

    @property
    def closed(self) -> bool:
        """Any thread: True if the socket is closed."""
        return self.state is CLOSED

    @property
    def send_closed(self) -> bool:
        """Loop owner: True if frames that are queued from now on will not be sent."""
        return self.state is not OPEN

    @property
    def has_unsent(self) -> bool:
        """Loop owner: True if the socket has not accepted all data."""
        return bool(self._unsent)

    @property
    def position(self) -> int:
        """Loop owner: the number of bytes sent, including bytes not yet accepted by the socket."""
        return self.bytes_out + self._unsent_size

    @property
    def messages_out(self) -> int:
        """Any thread: the number of messages or events that were passed to the socket."""
        return max(0, self.frames_out)

    def begin_answer(self, head: bytes) -> None:
        """Loop owner: queue the head of an answer that messages follow."""
        self.out.append(head)
        self.frames_out: int = -1  # the head does not count as a message

    def send_control(self, *frames: bytes) -> None:
        """Loop owner: send the queued frames, then the given control frames."""
        self.queue_control(*frames)
        self.flush()

    def queue_control(self, *frames: bytes) -> None:
        """Loop owner: queue control frames after the other frames; :meth:`flush` sends them."""
        if self.state is OPEN:
            self._gather(*frames)

    def flush(self) -> None:
        """Loop owner: send as many queued items as the socket accepts."""
        if not self.clear:
            self._flush_slowly()
        elif self.out:
            for _, items, sent in send((self,)) if self.fd < 0 else self.loop.poller.send([self]):
                self.sent_partly(items, sent)

    def sent_partly(self, items: Sequence[Item] | bytes | None, sent: int) -> None:
        """Loop owner: process the result of a call that has sent queued items of many connections.

        Args:
            items: the items taken from ``out``, or their TLS records; None if no item was taken.
            sent: the number of bytes that the socket has accepted.
        """
        if items:
            self._keep([items] if isinstance(items, bytes) else items, sent)
        if items is None and self.clear and self.fd < 0:
            self.flush()
        else:
            self._flush_slowly()

    def _flush_as_scheduled(self) -> None:
        """Loop owner: flush frames that another thread, or another handler, has queued."""
        self._flush_scheduled = False
        self.loop.round.answered.append(self)

    def _flush_slowly(self) -> None:
        """Send the queued items when the socket is full, a thread waits, or the end is near."""
        assert self.loop.owned()
        if self.state is CLOSED:
            return
        was_congested = self.congested
        if self.out and self.state is OPEN:
            self._gather()
        if self._unsent and not self._blocked:
            self._send()
        if self._blocked:
            self._update_interest()
        self._notify_writers()
        if self.state is FINISHING and not self._unsent:
            self._shut_write()
        self.clear: bool = self.state is OPEN and not (self._unsent or self._blocked)
        if was_congested and not self.congested:
            self.session.drained()
        if self.notify_when_sent and self.state is OPEN and not self._unsent:
            self.notify_when_sent = False
            self.session.sent_all()

    def close_send(self, *last: bytes) -> None:
        """Loop owner: queue the last frames; frames that are appended later are not sent."""
        if self.state is not OPEN:
            return
        self._gather(*last)
        self.state = SEALED
        self.next_check = 0.0  # close_timeout applies from now on
        self._notify_writers()  # the frames of waiting threads will not be sent

    def _notify_writers(self) -> None:
        """Wake all threads that wait to send."""
        if not self.waiting:
            return  # no thread waits: each announces its wait before it checks the size
        with self.clients.sendable:
            self.clients.sendable.notify_all()

    def _gather(self, *control: bytes) -> None:
        """Append the queued items, then the control frames, to the unsent data."""
        queued = len(self.out)  # other threads may append to ``out`` meanwhile
        items = self.out[:queued]
        del self.out[:queued]
        self.frames_out += queued
        self._keep([*items, *control], 0)

    def _keep(self, items: Sequence[Item], sent: int) -> None:
        """Append items to the unsent data, without the first ``sent`` bytes."""
        pieces: Sequence[bytes | memoryview] = pieces_of(items)
        if sent:
            pieces = without_first(pieces, sent)
        self._unsent_size += sum(map(len, pieces))
        before = self._unsent
        if before and pieces and max(len(before[-1]), len(pieces[0])) <= COPY_LIMIT:
            # Short pieces are joined, so that a client that reads nothing does not use a piece for
            # each.
            before, pieces = before[:-1], (b"".join((before[-1], pieces[0])), *pieces[1:])
        self._unsent = (*before, *pieces)
        self.clear = False
        self.large: int = 0

    def _send(self) -> None:
        """Send as much of the unsent data as the socket accepts."""
        # With this flag the last data and the FIN share a packet, so that the client wakes up once.
        flags = MORE if self.state is FINISHING and self.fd >= 0 else ()
        try:
            while pieces := self._pieces_to_send():
                sent = send_pieces(self.sock, pieces, *flags)
                self.bytes_out += sent
                self._unsent_size -= sent
                self._unsent = without_first(self._unsent, sent)
                if sent < sum(map(len, pieces)):
                    break
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.abort()
            return
        if self._unsent:
            if self.waiting_since == inf:
                self.next_check = 0.0  # the time without progress begins now
            self._blocked = True

    def _pieces_to_send(self) -> Sequence[bytes | memoryview]:
        """Return the first pieces of unsent data, for one call of send."""
        return self._unsent[:MAX_PIECES]

    # Any thread -------------------------------------------------------------------------------

    @property
    def waiting_senders(self) -> int:
        """Any thread: the number of threads that wait until the client has received enough."""
        return self.waiting

    def send(self, frame: bytes) -> None:
        """Any thread: queue a frame; it is sent after this turn, or soon."""
        self.out.append(frame)
        if not self.in_turn or len(frame) > LARGE_FRAME:
            self.schedule_flush(len(frame))

    def schedule_flush(self, size: int, *, wait: bool = True) -> None:
        """Any thread: make the owner flush frames that were appended to ``out``.

        Within the connection's own turn this is needed only for large frames, which are counted. A
        thread other than the owner waits while too much is unsent. The owner cannot wait: if it
        sends for another connection, a client that is too slow is disconnected.

        Args:
            size: the number of bytes appended.
            wait: False to return at once, after :meth:`wait_for_room`.
        """
        owned = self.loop.owned()
        if owned and self.in_turn:
            self.large += size
            if self.large > HIGH_WATER:
                self.stop_turn = True
            return
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush_as_scheduled)
        if not wait:
            return
        if owned:
            if self.congested:
                # The sender must not block the loop.
                self.loop.call_soon(partial(self.cut_off, "too slow for the data sent to it"))
        elif (size > LARGE_FRAME or len(self.out) > FEW_FRAMES or self._unsent) and self._too_much:
            self._wait()

    @property
    def unsent(self) -> int:
        """Any thread: the number of queued bytes that the socket has not accepted."""
        return self._unsent_size + sum(map(size_of, self.out.copy()))

    @property
    def _too_much(self) -> bool:
        """Any thread: True if a thread that sends must wait."""
        return self.unsent > HIGH_WATER and self.state is OPEN

    def wait_for_room(self, timeout: float) -> bool:
        """Any thread: wait until a frame can be queued, or the connection has ended.

        A turn that waits here on the loop's thread loses the loop.

        Args:
            timeout: the longest time to wait, in seconds.

        Returns:
            False if too much is still unsent after that time.
        """
        return not self._too_much or self._wait(timeout)

    def _wait(self, timeout: float | None = None) -> bool:
        """Any thread: wait while too much is unsent; return False after the time-out."""
        with self.clients.sendable:
            # The thread announces its wait before it checks the size, so that no flush is missed.
            self.waiting += 1
            try:
                limit = None if timeout is None else waitable(timeout)
                return self.clients.sendable.wait_for(lambda: not self._too_much, limit)
            finally:
                self.waiting -= 1


def no_room(timeout: float) -> TimeoutError:
    """Return the error for a time-out of :meth:`Peer.wait_for_room`."""
    return TimeoutError(
        f"nothing was queued: more than {HIGH_WATER >> 10} KiB were unsent for {timeout:g} s"
    )


def first_of(pieces: Iterable[bytes | memoryview], size: int) -> list[bytes | memoryview]:
    """Return the first ``size`` bytes of a sequence of pieces, as pieces."""
    first: list[bytes | memoryview] = []
    for piece in pieces:
        if size < len(piece):
            if size:
                first.append(memoryview(piece)[:size])
            break
        first.append(piece)
        size -= len(piece)
    return first


def without_first(
    pieces: Sequence[bytes | memoryview], size: int
) -> tuple[bytes | memoryview, ...]:
    """Return the pieces without the first ``size`` bytes."""
    for number, piece in enumerate(pieces):
        if size < len(piece):
            return (memoryview(piece)[size:] if size else piece, *pieces[number + 1 :])
        size -= len(piece)
    return ()
