"""A reload: the replacement of all workers, one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from ..reports.loggers import log
from ..status import Status
from .process import WorkerProcess


class Reload:
    """The reloads of a service. Only the supervisor calls its methods.

    A worker is retired when its successor serves on the same sockets, so no client is refused. If a
    successor does not start, the remaining workers stay.

    Args:
        fork: a function that starts a worker on the sockets with a number; it raises an OSError on
            failure.
        retire: a function that makes a worker end.
        status: the object that reports the states of the service.

    Attributes:
        running: True from :meth:`begin` until the last worker was replaced.
    """

    def __init__(
        self,
        fork: Callable[[int], WorkerProcess],
        retire: Callable[[WorkerProcess], object],
        status: Status,
    ) -> None:
        self.running: bool = False
        self._fork = fork
        self._retire = retire
        self._status = status
        self._outdated: deque[WorkerProcess] = deque()  # the workers that must still be replaced

    def begin(self, workers: Iterable[WorkerProcess]) -> None:
        """Begin to replace the given workers."""
        self.running = True
        self._outdated.extend(workers)

    def step(self) -> None:
        """Continue the reload, unless it must wait for a worker."""
        while self._outdated:
            worker = self._outdated[0]
            if worker.ended:
                self._outdated.popleft()
            elif worker.successor is None:
                try:
                    worker.successor = self._fork(worker.slot)
                except OSError as error:
                    self._give_up(worker, f"{error.strerror}")
            elif worker.successor.started and not worker.retired:
                self._retire(worker)
            else:
                return
        if self.running:
            self.running = False
            self._status.reloaded()

    def successor_failed(self, successor: WorkerProcess, reason: str) -> bool:
        """Keep the old workers, if a worker that has ended was the successor of one of them."""
        for worker in self._outdated:
            if worker.successor is successor and not worker.ended:
                self._give_up(worker, reason)
                return True
        return False

    def _give_up(self, worker: WorkerProcess, reason: str) -> None:
        log_failed_start("keeping the old workers, because a new one failed to start", reason)
        worker.successor = None
        self._outdated.clear()


def log_failed_start(event: str, reason: str) -> None:
    """Log that a worker failed to start; the reason may be a traceback."""
    lines = reason.splitlines()
    above = {"stack": "\n".join(lines[:-1])} if len(lines) > 1 else None
    log.error("%s: %s", event, lines[-1], extra=above)
