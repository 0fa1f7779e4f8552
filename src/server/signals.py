"""Signals that ask for the end, and how the main thread waits for them."""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from types import TracebackType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Counts signals while it is entered, in the main thread, where Python runs their handlers.

    The wait is one for a socket. A wait for a lock or a queue may miss a signal: the system hands
    it to any thread, and then nothing wakes the main one to run the handler. Python writes to the
    socket whichever thread is interrupted.

    Args:
        numbers: the signals that count; each is handled as before in the end.
        others: signals that only wake.

    Attributes:
        count: how many have come.
    """

    def __init__(self, *numbers: int, others: tuple[int, ...] = ()) -> None:
        self.count = 0
        self._counted = numbers
        self._numbers = (*numbers, *others)

    def __enter__(self) -> Signals:
        """The main thread: begin to count."""
        self._wakened, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._heed) for number in self._numbers}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The main thread: leave everything as it was."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        self._close()

    def leave_to_parent(self) -> None:
        """The main thread of a child: have no part in what the parent has entered."""
        signal.set_wakeup_fd(-1)
        self._close()

    def fileno(self) -> int:
        """Any thread: what to poll; when it is readable, :meth:`wait` does not wait."""
        return self._wakened.fileno()

    def wait(self) -> None:
        """The main thread: wait for any signal, or for :meth:`wake`; perhaps for nothing."""
        self._wakened.recv(4096)

    def wake(self) -> None:
        """Any thread: have the main thread look whether there is something new."""
        with suppress(OSError):  # it is full, which wakes as well; or closed
            self._waker.send(b"\0")

    def _close(self) -> None:
        self._wakened.close()
        self._waker.close()

    def _heed(self, number: int, frame: object) -> None:
        self.count += number in self._counted
        self.wake()  # for it may have been woken, and waited again, before this was called
