"""Signals that ask for the end, and how the main thread waits for them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from wsframe.waker import Waker

from .forks import give_up_in_children

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


_at_fork = threading.local()


class Interrupted(BaseException):
    """A stop signal has come while user code started an application."""


class Signals:
    """Counts signals while it is entered, in the main thread, where Python runs their handlers.

    The wait is one for a socket. A wait for a lock or a queue may miss a signal: the system hands
    it to any thread, and then nothing wakes the main one to run the handler. Python writes to the
    socket whichever thread is interrupted.

    The children of forks handle the signals as they were handled before, from their first moment.

    Args:
        numbers: the signals that count; each is handled as before in the end.
        others: signals that only wake.
        forcible: a second one ends the process while user code is being interrupted, with code 1.

    Attributes:
        count: how many have come.
    """

    def __init__(self, *numbers: int, others: tuple[int, ...] = (), forcible: bool = False) -> None:
        self.count = 0
        self._counted = numbers
        self._numbers = (*numbers, *others)
        self._forcible = forcible
        self._interrupting = False
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Signals:
        """The main thread: begin to count."""
        self._waker = Waker(blocking=True)
        sender = self._waker.sender_fileno()
        self._fd_before = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._heed) for number in self._numbers}
        give_up_in_children(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The main thread: leave everything as it was."""
        before, self._before = self._before, {}
        if not before:
            return  # in the child of a fork
        for number, handler in before.items():
            # None is a handler that Python has not installed, and cannot install again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._fd_before)
        self._waker.close()

    def after_fork(self) -> None:
        """The child of a fork: have no part in what the parent waits for."""
        self.__exit__(None, None, None)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """The main thread: run user code that the first stop signal ends at once.

        Raises:
            Interrupted: a signal has come, before or meanwhile.
        """
        if self.count:
            raise Interrupted
        self._interrupting = True
        try:
            yield
        finally:
            self._interrupting = False
        if self.count:  # and user code has gone on regardless
            raise Interrupted

    def fileno(self) -> int:
        """Any thread: what to poll; when it is readable, :meth:`wait` does not wait."""
        return self._waker.fileno()

    def wait(self) -> None:
        """The main thread: wait for any signal, or for :meth:`wake`; perhaps for nothing."""
        self._waker.drain()

    def wake(self) -> None:
        """Any thread: have the main thread look whether there is something new."""
        self._waker.wake()

    def _heed(self, number: int, frame: object) -> None:
        self.count += number in self._counted
        self.wake()  # for it may have been woken, and waited again, before this was called
        if self._interrupting and number in self._counted:
            if self.count == 1:
                raise Interrupted
            if self._forcible:
                os._exit(1)


def _before_fork() -> None:
    """The parent: have signals to the child wait until it has its own handlers."""
    _at_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def _after_fork() -> None:
    """Both processes: handle signals again; the child's hooks of ``forks`` have run before."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _at_fork.mask)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
