"""The parts of a comparison of servers."""

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
        title: the heading of its table.
        servers: the names of the servers.
        measure: measures a new process of a server, by its name, for a number of seconds.
        columns: the columns of the table.
        of_limit: True if the table also shows the ratio to the limit.
        others: the names of servers that take part only on request.
        tls: True if the load uses TLS.
    """

    title: str
    servers: tuple[str, ...]
    measure: Callable[[str, float], Figures]
    columns: Columns
    of_limit: bool = True
    others: tuple[str, ...] = ()
    tls: bool = False


@dataclass(frozen=True)
class Best:
    """Several servers, and in each round the best of them."""

    name: str
    servers: tuple[str, ...]


@dataclass(frozen=True)
class Aim:
    """A bound on a figure of one server, or on its ratio to a rival's in the same round."""

    scenario: str
    ours: str
    figure: str
    relation: str
    bound: float
    rival: Best | None = None


def figures_of(measured: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures that every load measures."""
    return {
        "rate": measured["messages"] / measured["seconds"],
        "per_cpu": measured["messages"] / measured["cpu"],
        "busy": measured["cpu"] / measured["seconds"],
        "p50": measured["p50_us"] / 1000,
        "p99": measured["p99_us"] / 1000,
    }
