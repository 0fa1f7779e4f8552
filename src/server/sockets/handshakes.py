"""The thread that computes TLS handshakes, because one signature takes half a millisecond."""

from __future__ import annotations

import threading
from collections.abc import Callable
from logging import WARNING
from queue import SimpleQueue

from ..reports.throttled import ThrottledLog


class Handshakes:
    """The thread that computes the steps of TLS handshakes. The thread starts with the first step.

    While a step runs, this thread owns the socket: the owner of the loop neither uses nor closes
    the socket. OpenSSL releases the GIL, so the loop serves other clients meanwhile.
    """

    def __init__(self) -> None:
        self._steps: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._lock = threading.Lock()  # protects the start of the thread
        self._thread: threading.Thread | None = None
        self._log = ThrottledLog()

    def run(self, step: Callable[[], object]) -> None:
        """Owner of a loop: run a handshake step in the thread; the step must not raise."""
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="wsframe-tls", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # the system's limit on threads is reached
                    self._log.log(
                        WARNING,
                        "computing TLS handshakes on the loop, which delays other clients, "
                        "because no thread can be started: %s",
                        error,
                    )
                    step()
                    return
                self._thread = thread
        self._steps.put(step)

    def close(self) -> None:
        """Any thread, after the loops have ended: stop the thread, and wait for its end."""
        if self._thread is not None:
            self._steps.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            step()
            del step  # while the thread waits, it must not keep a connection alive
