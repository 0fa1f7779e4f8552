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
RELATIONS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<": operator.lt,
    "<=": operator.le,
}


def ratio(rounds: Rounds, figure: str, ours: str, rival: str) -> float | None:
    """Return the median of the ratios within rounds, which slow rounds do not distort."""
    pairs = zip(rounds.get(ours, ()), rounds.get(rival, ()), strict=False)
    ratios = [mine[figure] / other[figure] for mine, other in pairs if mine and other]
    return median(ratios) if ratios else None


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
            of_limit = [
                ratio({name: [mine], LIMIT: [limit]}, "per_cpu", name, LIMIT)
                for mine, limit in zip(by_round, rounds.get(LIMIT, ()), strict=False)
            ]
            known = [each for each in of_limit if each is not None]
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
        if aim.ours in rounds and (aim.rival is None or aim.rival in rounds):
            value = _measured(aim, rounds)
            met = value is not None and RELATIONS[aim.relation](value, aim.bound)
            table.append(
                (
                    f"{aim.scenario} {aim.ours}",
                    aim.figure,
                    aim.rival or "",
                    "failed" if value is None else f"{value:.2f}",
                    f"{aim.relation} {aim.bound:g}",
                    "met" if met else "MISSED",
                )
            )
    return aligned(table, left=(0, 1, 2, 5)) if len(table) > 1 else []


def _measured(aim: Aim, rounds: Rounds) -> float | None:
    if aim.rival is not None:
        return ratio(rounds, aim.figure, aim.ours, aim.rival)
    good = [figures[aim.figure] for figures in rounds[aim.ours] if figures]
    return median(good) if good else None
