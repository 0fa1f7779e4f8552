"""Stop signals, and the main thread's wait for them."""

from __future__ import annotations

import os
import select
import signal
import threading
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep
from weakref import ref

from wsframe.waker import Waker

from .forks import release_in_children
from .timing import LONGEST_POLL

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# The signal for a reload, which a closed terminal also sends; missing on Windows.
HANGUP = tuple(getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name))
HELD_BACK = (*STOP_SIGNALS, *HANGUP)
# The signal that interrupts the main thread again. Programs rarely use this signal, and by default
# it has no effect.
AGAIN = tuple(getattr(signal, name) for name in ("SIGURG",) if hasattr(signal, name))
# The pause between two interrupting signals, in seconds.
INTERVAL = 0.05

_at_fork = threading.local()


class Interrupted(BaseException):
    """The exception that a stop signal raises while user code starts an application."""


class Signals:
    """A context manager that counts signals, in the main thread, which runs Python's handlers.

    The main thread waits for a socket. A wait for a lock or a queue may miss a signal: the system
    delivers it to any thread, and then the main thread is not woken to run the handler. Python
    writes to the socket, no matter which thread the system interrupts.

    User code must be interrupted although it waits in other ways, so another thread interrupts the
    main thread again; see :meth:`interrupting`.

    The child of a fork has the previous handlers from its beginning.

    Args:
        numbers: the signals to count; their previous handlers are restored at the end.
        others: signals that only wake the main thread.
        forcible: a second signal ends the process with exit code 1 while user code is interrupted.

    Attributes:
        count: number of signals that have arrived.
        hangups: number of SIGHUPs that have arrived, if SIGHUP is one of ``others``. A SIGHUP from
            a closed terminal is counted as a stop signal instead.
    """

    def __init__(self, *numbers: int, others: tuple[int, ...] = (), forcible: bool = False) -> None:
        self.count: int = 0
        self.hangups: int = 0
        self._counted = numbers
        self._numbers = (*numbers, *others, *AGAIN)
        self._terminals = [file for file in range(3) if os.isatty(file)]
        self._forcible = forcible
        self._interrupting = False
        self._watching = False
        self._watcher = allocate_lock()  # the second thread holds this lock
        # A weak reference to the raised exception; it returns None before and after the exception's
        # life.
        self._raised: Callable[[], Interrupted | None] = lambda: None
        self._before: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Signals:
        """The main thread: install the handlers.

        Raises:
            RuntimeError: this is not the main thread.
        """
        self._waker = Waker(blocking=True)
        sender = self._waker.sender_fileno()
        try:
            self._fd_before = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        except ValueError:
            # The check of Python itself is right also if eventlet has patched threading.
            self._waker.close()
            raise RuntimeError(
                "App.run must be called in the main thread, because only that receives signals; "
                "call App.start in other threads"
            ) from None
        self._before = {number: signal.signal(number, self._handle) for number in self._numbers}
        release_in_children(self)
        return self

    def __exit__(self, *_: object) -> None:
        """The main thread: restore the previous handlers."""
        before, self._before = self._before, {}
        if not before:
            return  # this is the child of a fork
        for number, handler in before.items():
            # None means a handler that C code has installed, which cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._fd_before)
        self._waker.close()

    def after_fork(self) -> None:
        """The child of a fork, which has no second thread: restore the previous handlers."""
        self._watcher = allocate_lock()
        self.__exit__()

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """The main thread: run user code that the first stop signal interrupts.

        A handler may run late: if the signal arrives just before a system call, or in another
        thread, Python waits for the end of the call. The exception of a signal handler may be lost:
        Python suppresses exceptions in a destructor, a hook of a fork, or a callback of a weak
        reference. So the main thread is interrupted repeatedly after the first signal, and the
        exception is raised again once it was suppressed. User code that still handles it is not
        interrupted.

        Raises:
            Interrupted: a signal has arrived before or during the call.
        """
        with self._watched():
            self._interrupting = True
            try:
                if not self.count:
                    yield
            finally:
                self._interrupting = False
        # A signal arrived before the call, or user code has suppressed the exception.
        if self.count:
            raise Interrupted

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """The main thread: run a second thread that interrupts the main thread repeatedly.

        The second thread is not in the list of ``threading``. User code may let gevent or eventlet
        patch that module, and neither can patch a process with other threads in the list.
        """
        self._watching = self._watcher.acquire()
        try:
            start_new_thread(self._watch, ())
        except RuntimeError:  # the system cannot start another thread
            self._watcher.release()
        try:
            yield
        finally:
            self._watching = False
            self.wake()
            with self._watcher:  # the thread has ended
                self.wake()  # the thread has discarded earlier wake-ups

    def _watch(self) -> None:
        """The second thread: interrupt the main thread repeatedly after a stop signal."""
        stops = {*self._counted, *HANGUP}
        try:
            # Python writes the number of a signal at its arrival, before the handler runs.
            while self._watching and stops.isdisjoint(self._waker.drain()):
                pass
            while self._watching:
                for number in AGAIN:
                    # Linux delivers the signal to the main thread if possible.
                    os.kill(os.getpid(), number)
                sleep(INTERVAL)
        finally:
            self._watcher.release()

    def fileno(self) -> int:
        """Any thread: return the descriptor to poll; :meth:`wait` returns once it is readable."""
        return self._waker.fileno()

    def wait(self, timeout: float | None = None) -> None:
        """The main thread: wait for a signal or for :meth:`wake`; it may return early.

        Args:
            timeout: the longest wait in seconds; None for no limit.
        """
        if timeout is not None:
            poller = select.poll()
            poller.register(self._waker, select.POLLIN)
            if not poller.poll(min(max(0.0, timeout), LONGEST_POLL) * 1000):
                return
        self._waker.drain()

    def wake(self) -> None:
        """Any thread: make :meth:`wait` return."""
        self._waker.wake()

    def _handle(self, number: int, frame: object) -> None:
        stops = number in self._counted
        if number in HANGUP:
            stops = any(not os.isatty(file) for file in self._terminals)
            self.hangups += not stops
        self.count += stops
        self.wake()  # the main thread may wait again before this handler runs
        if self._interrupting and self.count:
            if stops and self.count > 1 and self._forcible:
                os._exit(1)
            if self._raised() is None:
                raise self._interruption()

    def _interruption(self) -> Interrupted:
        # No frame of the traceback refers to the exception, which exists only while user code
        # handles it.
        interruption = Interrupted()
        self._raised = ref(interruption)
        return interruption


def _before_fork() -> None:
    """The parent: hold back signals until the child has its own handlers."""
    _at_fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)


def _after_fork() -> None:
    """Both processes: handle signals again, in the child after the hooks of ``forks``."""
    signal.pthread_sigmask(signal.SIG_SETMASK, _at_fork.mask)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )
