"""The supervisor's record of a worker process."""

from __future__ import annotations

from io import BufferedRandom
from math import inf
from time import monotonic

from ..reports.failure import Failure
from ..reports.stats import Stats
from .channel import Channel, encode_stats
from .collector import Participant
from .watchdog import Watchdog

# The maximum number of bytes of a worker's stacks that are logged.
MAX_STACKS = 1 << 18


class WorkerProcess:
    """The supervisor's record of one worker. Times are on the monotonic clock.

    Attributes:
        pid: the process id.
        slot: the number of its listening sockets.
        channel: the channel to the worker.
        stacks: file to which the worker writes the stacks of its threads; None without a
            ``worker_timeout``, or without a place for the file.
        reason: the reason that the worker gave for not starting; None if it gave none.
        started: True once the worker serves.
        forked_at: time of the fork.
        watchdog: the check that the worker's loops make progress.
        participant: the worker's part in the collection of statistics.
        kill_at: the time at which the worker is killed, unless it has ended.
        hung: True once the watchdog has found that the worker hangs.
        successor: the worker that replaces this one; None without one.
        retired: True once the worker must end because its successor serves.
        ended: True once the process has ended.
    """

    def __init__(
        self, pid: int, slot: int, channel: Channel, stacks: BufferedRandom | None, timeout: float
    ) -> None:
        self.pid = pid
        self.slot = slot
        self.channel = channel
        self.stacks = stacks
        self.reason: Failure | None = None
        self.started = False
        self.forked_at: float = monotonic()
        self.watchdog: Watchdog = Watchdog(monotonic, timeout, lambda: channel.send("check"))
        self.participant: Participant = Participant(lambda: channel.send("collect"), self._answer)
        self.kill_at: float = inf
        self.hung = False
        self.successor: WorkerProcess | None = None
        self.retired: bool = False
        self.ended = False

    @property
    def due(self) -> float:
        """The time of the next check of this worker."""
        if self.hung or self.retired:
            return self.kill_at
        return self.watchdog.due if self.started else inf

    def retire(self, seconds: float) -> None:
        """Make the worker stop within a number of seconds, because its successor serves."""
        self.retired = True
        self.kill_at = monotonic() + seconds
        self.channel.send("retire")

    def read_stacks(self) -> str:
        """Return the stacks that the worker has written."""
        if self.stacks is None:
            return ""
        self.stacks.seek(0)
        return self.stacks.read(MAX_STACKS).decode(errors="replace").strip()

    def close(self) -> None:
        """Close the channel and the file of a worker that has ended."""
        self.channel.close()
        if self.stacks is not None:
            self.stacks.close()

    def _answer(self, stats: Stats) -> None:
        self.channel.send("answer", encode_stats(stats))
