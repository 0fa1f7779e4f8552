"""What a comparison of servers is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, float]
# A figure's heading, name and format.
Columns = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Scenario:
    """A load, and the servers that take turns under it.

    Attributes:
        title: what it is, for people.
        servers: who takes part.
        measure: puts a fresh process of the server, by its name, under the load for so many
            seconds.
        columns: what the table shows.
        of_limit: whether it shows the ratio to the limit, too.
    """

    title: str
    servers: tuple[str, ...]
    measure: Callable[[str, float], Figures]
    columns: Columns
    of_limit: bool = True


@dataclass(frozen=True)
class Aim:
    """A bound on a figure of one server, or on its ratio to a rival's in the same round."""

    scenario: str
    ours: str
    figure: str
    relation: str
    bound: float
    rival: str | None = None


def figures_of(measured: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that every load has."""
    return {
        "rate": measured["messages"] / measured["seconds"],
        "per_cpu": measured["messages"] / measured["cpu"],
        "busy": measured["cpu"] / measured["seconds"],
        "p50": measured["p50_us"] / 1000,
        "p99": measured["p99_us"] / 1000,
    }
