"""The codec beside other implementations: see README.md in this directory."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

from .codecs import GROUPS
from .contest import Contest, clock, names_of, sizes_of
from .data import label


class PerCall:
    """A clock for pytest-benchmark that divides a round's time by its number of calls."""

    calls = 1
    __name__ = "seconds per call"

    def __call__(self) -> float:
        """Return the time."""
        return clock() / self.calls


per_call = PerCall()
CASES = [
    pytest.param(group, size, name, id=f"{group}-{label(size)}-{name}")
    for group in GROUPS
    for size in sizes_of(group)
    for name in names_of(group, size)
]


@lru_cache(maxsize=1)
def contest(group: str, size: int) -> Contest:
    """Build each contender once; cases of the same group and size are consecutive."""
    return Contest(group, size)


@pytest.mark.benchmark(timer=per_call, disable_gc=True)
@pytest.mark.parametrize(("group", "size", "name"), CASES)
def test_codec(benchmark: Any, results: Any, group: str, size: int, name: str) -> None:
    """Time one implementation; the first case of a group also times all, interleaved."""
    cell = contest(group, size)
    contender = cell.contenders[name]
    benchmark.group = group if group == "accept_key" else f"{group}, {label(size)}"
    if benchmark.disabled:
        benchmark.pedantic(contender.run, args=(1,))
        return
    if not cell.calls:
        cell.prepare()
        results.setdefault(group, {})[size] = cell.measure()
    calls = cell.calls[name]
    per_call.calls = calls * contender.frames
    benchmark.extra_info["calls per round"] = calls
    benchmark.extra_info["interleaved ns"] = results[group][size][name]
    benchmark.pedantic(contender.run, args=(calls,), rounds=31, warmup_rounds=1)
