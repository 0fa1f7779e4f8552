"""The measurement: rounds of calls, interleaved over all contenders for the same task."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from random import Random
from statistics import median

from .codecs import GROUPS, Contender
from .data import SIZES
from .traffic import SIZES_OF

ROUND_SECONDS = 0.0004
ROUNDS = 151
FEWEST_ROUNDS = 31
CELL_SECONDS = 2.5

# CPU time, where its resolution suffices: other processes then affect only the caches.
clock: Callable[[], float] = (
    time.thread_time if time.get_clock_info("thread_time").resolution <= 1e-8 else time.perf_counter
)


def sizes_of(group: str) -> tuple[int, ...]:
    """Return the payload sizes of a group."""
    return (0,) if group == "accept_key" else SIZES_OF.get(group, SIZES)


def names_of(group: str, size: int) -> list[str]:
    """Return the contenders."""
    return [name for name, (_, largest) in GROUPS[group].items() if size <= largest]


def settle_allocator() -> None:
    """Let malloc keep a few MiB, as in a process that has run for a while.

    Otherwise every large payload is mapped and unmapped, and page faults dominate the figures.
    """
    for _ in range(3):
        bytes(16 << 20)


def calls_per_round(contender: Contender) -> int:
    """Return the number of calls that take about one round."""
    calls = 1
    while True:
        times = []
        for _ in range(3):
            start = clock()
            contender.run(calls)
            times.append(clock() - start)
        if min(times) >= ROUND_SECONDS / 4:
            return max(1, round(calls * ROUND_SECONDS / min(times)))
        calls *= 2


class Contest:
    """All contenders of a group at one payload size."""

    def __init__(self, group: str, size: int) -> None:
        names = names_of(group, size)
        self.contenders = {name: GROUPS[group][name][0](size) for name in names}
        for name, contender in self.contenders.items():
            for _ in range(2):
                if contender.result() != contender.expected:
                    raise AssertionError(f"{name}: wrong result of {group} at {size} bytes")
        self.calls: dict[str, int] = {}

    def prepare(self) -> None:
        """Choose the length of each contender's round."""
        settle_allocator()
        self.calls = {name: calls_per_round(each) for name, each in self.contenders.items()}

    def measure(self) -> dict[str, float]:
        """Return each contender's median time for one call or one frame, in nanoseconds.

        Every round times each contender once, in random order.
        """
        order = list(self.contenders)
        random = Random(0)
        times: dict[str, list[float]] = {name: [] for name in order}
        had_gc = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            begin = clock()
            for done in range(ROUNDS):
                if done >= FEWEST_ROUNDS and clock() - begin > CELL_SECONDS:
                    break
                random.shuffle(order)
                for name in order:
                    run, calls = self.contenders[name].run, self.calls[name]
                    start = clock()
                    run(calls)
                    times[name].append(clock() - start)
        finally:
            if had_gc:
                gc.enable()
        return {
            name: median(times[name]) * 1e9 / (self.calls[name] * each.frames)
            for name, each in self.contenders.items()
        }
