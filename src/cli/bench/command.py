"""The command ``bench``: the measurement, and its result as text."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from statistics import median
from time import perf_counter

from ..client.options import positive, seconds
from ..exits import Exit
from ..parsers import command_parser
from ..printing import write
from ..program import version
from .codecs import PEERS, TASKS, Calls, Codec, Task, installed

EXAMPLES = """\
examples:
  %(prog)s                 a few seconds
  %(prog)s --rounds 31     a more exact result
"""


def main(arguments: Sequence[str], prog: str) -> int:
    """Measure, and print the result; return the exit code."""
    parser = command_parser(
        prog,
        "Measure how long the codec takes for one frame on this machine, beside the peers that are "
        f"installed. {PEERS} Every result is checked before it is timed. The output is a table in "
        "Markdown, which can be pasted into an issue.",
        EXAMPLES,
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        default=15,
        metavar="N",
        help="rounds, in each of which all implementations take turns (default: %(default)s)",
    )
    parser.add_argument(
        "--slice",
        type=seconds,
        default=0.02,
        metavar="SECONDS",
        help="time of one implementation at one task in a round (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    for line in report(installed(), options.rounds, options.slice):
        write(f"{line}\n")
    if busy := _load():
        print(f"The machine was busy ({busy}), so the figures may be too high.", file=sys.stderr)
    return Exit.OK


def report(codecs: Sequence[Codec], rounds: int, share: float) -> Iterator[str]:
    """Yield the lines of the result.

    Args:
        codecs: the implementations.
        rounds: the number of rounds.
        share: the time of one implementation at one task in a round, in seconds.
    """
    yield version()
    yield f"{_processor()}, {platform.machine()}, {os.cpu_count()} cores"
    yield f"nanoseconds for a frame, medians of {rounds} rounds in which the columns take turns"
    yield PEERS
    yield ""
    yield f"| | {' | '.join(codec.name for codec in codecs)} |"
    yield f"|---|{'---:|' * len(codecs)}"
    for task in TASKS:
        figures = measure(task, [codec.calls(task) for codec in codecs], rounds, share)
        yield f"| {task} | {' | '.join(f'{figure:,.0f}' for figure in figures)} |"


def measure(task: Task, contenders: Sequence[Calls], rounds: int, share: float) -> list[float]:
    """Return the median time of each contender for one frame, in nanoseconds."""
    counts = [_count(contender, share) for contender in contenders]
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for contender, count, found in zip(contenders, counts, times, strict=True):
            found.append(_time(contender, count) / count / task.frames)
    return [1e9 * median(found) for found in times]


def _count(contender: Callable[[int], None], share: float) -> int:
    """Return the number of calls that take a given time."""
    count = 1
    while (taken := _time(contender, count)) < share / 4:
        count *= 2
    return max(1, round(count * share / taken)) if taken else count


def _time(contender: Callable[[int], None], count: int) -> float:
    begin = perf_counter()
    contender(count)
    return perf_counter() - begin


def _processor() -> str:
    """Return the name of the processor."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _load() -> str:
    """Return the machine's load if other programs use it, for the result; otherwise ""."""
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows
        return ""
    cores = os.cpu_count() or 1
    return f"load {load:.1f} on {cores} cores" if load > max(1.5, cores / 2) else ""
