"""TLS handshakes: a thread that computes them, because one signature takes half a millisecond."""

from __future__ import annotations

import threading
from collections.abc import Callable
from logging import WARNING
from queue import SimpleQueue

from ..reports.throttled import ThrottledLog


class Handshakes:
    """The thread that computes the steps of TLS handshakes. It starts with the first step.

    While a step runs, this thread owns the socket: the owner of the loop does not use it, and does
    not close it. OpenSSL releases the GIL, so the loop serves other clients meanwhile.
    """

    def __init__(self) -> None:
        self._steps: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._lock = threading.Lock()  # guards the start of the thread
        self._thread: threading.Thread | None = None
        self._log = ThrottledLog()

    def run(self, step: Callable[[], object]) -> None:
        """Owner of a loop: run a step of a handshake, which must not raise, in the thread."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="wsframe-tls", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # the system cannot start another thread
                    self._log.log(WARNING, "TLS handshakes run on the loop: %s", error)
                    step()
                    return
                self._thread = thread
        self._steps.put(step)

    def close(self) -> None:
        """Any thread, after the loops have ended: end the thread, and wait for its end."""
        if self._thread is not None:
            self._steps.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            step()
            del step  # a waiting thread must not keep a connection alive
