"""A reload: the replacement of all workers, one after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ..reports.failure import Failure
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
        all_serve: a function that returns True if a worker serves on each of the sockets.
        status: the object that reports the states of the service.

    Attributes:
        running: True from :meth:`begin` until new workers serve on all sockets, or one has failed.
    """

    def __init__(
        self,
        fork: Callable[[int], WorkerProcess],
        retire: Callable[[WorkerProcess], object],
        all_serve: Callable[[], bool],
        status: Status,
    ) -> None:
        self.running: bool = False
        self._fork = fork
        self._retire = retire
        self._all_serve = all_serve
        self._status = status
        self._outdated: deque[WorkerProcess] = deque()  # the workers that must still be replaced
        self._number = 0  # the number of workers at the beginning
        self._problems: list[str] = []

    def begin(self, workers: Sequence[WorkerProcess], problems: Iterable[str]) -> None:
        """Begin to replace the given workers.

        Args:
            workers: the workers of the service.
            problems: the parts of the old state that the new workers use, and why.
        """
        self.running = True
        self._number = len(workers)
        self._problems = [*problems]
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
                    self._give_up(worker, Failure(f"{error.strerror}"))
            elif worker.successor.started and not worker.retired:
                self._retire(worker)
            else:
                return
        # The successor of a worker that has ended unexpectedly may not serve yet.
        if self.running and self._all_serve():
            self._end(partly=True)

    def successor_failed(self, successor: WorkerProcess, reason: Failure) -> bool:
        """Keep the old workers, if a worker that has ended was the successor of one of them."""
        for worker in self._outdated:
            if worker.successor is successor and not worker.ended:
                self._give_up(worker, reason)
                return True
        return False

    def _give_up(self, worker: WorkerProcess, reason: Failure) -> None:
        worker.successor = None
        kept = sum(not each.ended for each in self._outdated)
        which = "the" if kept == self._number else f"{kept} of {self._number}"
        event = f"keeping {which} old workers, because a new one failed to start"
        log_failed_start(event, reason)
        self._problems.append(f"{event}: {reason.message}")
        self._outdated.clear()
        self._end(partly=kept < self._number)

    def _end(self, *, partly: bool) -> None:
        self.running = False
        self._status.reloaded(self._problems, partly=partly)


def log_failed_start(event: str, reason: Failure) -> None:
    """Log that a worker failed to start, with the traceback of an exception."""
    extra = {"stack": reason.traceback} if reason.traceback else None
    log.error("%s: %s", event, reason.message, extra=extra)
