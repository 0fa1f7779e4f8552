"""Stop signals, and the main thread's wait for them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from wsframe.waker import Waker

from .forks import release_in_children

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_at_fork = threading.local()


class Interrupted(BaseException):
    """A stop signal has arrived while user code started an application."""


class Signals:
    """Counts signals while it is entered, in the main thread, which runs Python's handlers.

    The main thread waits for a socket. A wait for a lock or a queue may miss a signal: the system
    delivers it to any thread, and then the main thread is not woken to run the handler. Python
    writes to the socket, whichever thread is interrupted.

    The children of forks have the previous handlers from the beginning.

    Args:
        numbers: the signals to count; their previous handlers are restored at the end.
        others: signals that only wake the main thread.
        forcible: a second signal ends the process with exit code 1 while user code is interrupted.

    Attributes:
        count: number of signals that have arrived.
    """

    def __init__(self, *numbers: int, others: tuple[int, ...] = (), forcible: bool = False) -> None:
        self.count = 0
        self._counted = numbers
        self._numbers = (*numbers, *others)
        self._forcible = forcible
        self._interrupting = False
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Signals:
        """The main thread: install the handlers."""
        self._waker = Waker(blocking=True)
        sender = self._waker.sender_fileno()
        self._fd_before = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._handle) for number in self._numbers}
        release_in_children(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The main thread: restore the previous handlers."""
        before, self._before = self._before, {}
        if not before:
            return  # in the child of a fork
        for number, handler in before.items():
            # None is a handler that was not installed by Python and cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._fd_before)
        self._waker.close()

    def after_fork(self) -> None:
        """The child of a fork: restore the previous handlers, too."""
        self.__exit__(None, None, None)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """The main thread: run user code that the first stop signal interrupts.

        Raises:
            Interrupted: a signal has arrived before or during the call.
        """
        if self.count:
            raise Interrupted
        self._interrupting = True
        try:
            yield
        finally:
            self._interrupting = False
        if self.count:  # user code has suppressed the exception
            raise Interrupted

    def fileno(self) -> int:
        """Any thread: return the descriptor to poll; :meth:`wait` returns once it is readable."""
        return self._waker.fileno()

    def wait(self) -> None:
        """The main thread: wait for a signal or for :meth:`wake`; it may return early."""
        self._waker.drain()

    def wake(self) -> None:
        """Any thread: make :meth:`wait` return."""
        self._waker.wake()

    def _handle(self, number: int, frame: object) -> None:
        self.count += number in self._counted
        self.wake()  # the main thread may have been woken and wait again before this handler runs
        if self._interrupting and number in self._counted:
            if self.count == 1:
                raise Interrupted
            if self._forcible:
                os._exit(1)


def _before_fork() -> None:
    """The parent: hold back stop signals until the child has its own handlers."""
    _at_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def _after_fork() -> None:
    """Both processes: handle signals again; the child has run its hooks of ``forks`` before."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _at_fork.mask)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
