"""The tables of the server benchmarks."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median

from .aims import aligned
from .comparison import Aim, Figures, Scenario
from .serving import LIMIT

# The figures of each server of a scenario, by round; None for a failed run.
Rounds = Mapping[str, Sequence[Figures | None]]
Choice = Callable[[Iterable[float]], float]
RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<": operator.lt,
    "<=": operator.le,
}


def best_of(
    rounds: Rounds, figure: str, servers: Iterable[str], best: Choice = max
) -> list[float | None]:
    """Return the best figure of these servers in each round; None if none has run."""
    columns = [rounds[name] for name in servers if name in rounds]
    return [
        best(known) if (known := [figures[figure] for figures in row if figures]) else None
        for row in zip(*columns, strict=True)
    ]


def ratios(ours: Iterable[float | None], rivals: Iterable[float | None]) -> list[float]:
    """Return the ratios within rounds, whose median slow rounds do not distort."""
    pairs = zip(ours, rivals, strict=False)
    return [mine / other for mine, other in pairs if mine is not None and other is not None]


def scenario_table(key: str, scenario: Scenario, rounds: Rounds) -> Iterator[str]:
    """Return the lines of a scenario's table: a row per server, with medians of its rounds."""
    heads = [head for head, _, _ in scenario.columns]
    ratio_heads = ("of C", "min..max") if scenario.of_limit else ()
    table: list[tuple[str, ...]] = [("", *heads, *ratio_heads)]
    for name, by_round in rounds.items():
        good = [figures for figures in by_round if figures]
        if not good:
            continue
        cells = [
            format(median(f[figure] for f in good), form) for _, figure, form in scenario.columns
        ]
        if scenario.of_limit:
            limit = best_of(rounds, "per_cpu", (LIMIT,))
            known = ratios(best_of(rounds, "per_cpu", (name,)), limit)
            cells += (
                (f"{median(known):.2f}", f"{min(known):.2f}..{max(known):.2f}")
                if known
                else ("", "")
            )
        table.append((name, *cells))
    yield f"{key}: {scenario.title}"
    yield from aligned(table, left=(0,))


def aims_table(aims: Iterable[Aim], results: Mapping[str, Rounds]) -> list[str]:
    """Return the lines of the table of the measured aims."""
    table: list[tuple[str, ...]] = [("aim", "figure", "against", "measured", "", "")]
    for aim in aims:
        rounds = results.get(aim.scenario, {})
        if aim.ours in rounds and (aim.rival is None or rounds.keys() & {*aim.rival.servers}):
            value = _measured(aim, rounds)
            met = value is not None and RELATIONS[aim.relation](value, aim.bound)
            table.append(
                (
                    f"{aim.scenario} {aim.ours}",
                    aim.figure,
                    aim.rival.name if aim.rival else "",
                    "failed" if value is None else f"{value:.2f}",
                    f"{aim.relation} {aim.bound:g}",
                    "met" if met else "MISSED",
                )
            )
    return aligned(table, left=(0, 1, 2, 5)) if len(table) > 1 else []


def _measured(aim: Aim, rounds: Rounds) -> float | None:
    best = max if aim.relation in (">", ">=") else min
    figures = best_of(rounds, aim.figure, (aim.ours,))
    if aim.rival is not None:
        values = ratios(figures, best_of(rounds, aim.figure, aim.rival.servers, best))
    else:
        values = [value for value in figures if value is not None]
    return median(values) if values else None
