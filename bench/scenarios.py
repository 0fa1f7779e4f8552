"""What the servers are put through, who takes part, and what wsframe is to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import load
from .serving import ASYNC_PEERS, GENERATOR, LIMIT, PICOWS, SERVERS, THREAD, WEBSOCKETS, serve

Figures = Mapping[str, float]
CROWD = 5000
BLOCKERS = 8

# A figure's heading, name and format.
ECHO_COLUMNS = (
    ("msg/s", "rate", ",.0f"),
    ("msg/CPU s", "per_cpu", ",.0f"),
    ("busy", "busy", ".0%"),
    ("p50 ms", "p50", ".3f"),
    ("p99 ms", "p99", ".3f"),
    ("events/poll", "events_per_poll", ".1f"),
    ("starving", "starving", ".0f"),
)
HANDSHAKE_COLUMNS = (
    ("per s", "rate", ",.0f"),
    ("per CPU s", "per_cpu", ",.0f"),
    ("busy", "busy", ".0%"),
    ("p50 ms", "p50", ".3f"),
    ("p99 ms", "p99", ".3f"),
)
HINDERED_COLUMNS = (
    ("alone msg/s", "alone", ",.0f"),
    ("msg/s", "rate", ",.0f"),
    ("kept", "kept", ".2f"),
    ("p50 ms", "p50", ".1f"),
    ("p99 ms", "p99", ".1f"),
    ("blockers' msg/s", "blockers", ",.1f"),
    ("their p50 ms", "blockers_p50", ",.0f"),
    ("busy", "busy", ".0%"),
    ("events/poll", "events_per_poll", ".1f"),
)
STORM_COLUMNS = (
    ("served", "served", ",.0f"),
    ("refused", "refused", ",.0f"),
    ("failed", "failed", ",.0f"),
    ("last after s", "seconds", ".2f"),
    ("p50 s", "p50_seconds", ".2f"),
    ("CPU s", "cpu", ".2f"),
)


@dataclass(frozen=True)
class Scenario:
    """A load, and the servers that take turns under it.

    Attributes:
        title: what it is, for people.
        servers: who takes part.
        measure: puts a fresh process of the server, by its name, under the load for so many
            seconds.
        columns: what the table shows.
    """

    title: str
    servers: tuple[str, ...]
    measure: Callable[[str, float], Figures]
    columns: tuple[tuple[str, str, str], ...] = ECHO_COLUMNS


@dataclass(frozen=True)
class Aim:
    """A bound on a figure of one server, or on its ratio to a rival's in the same round."""

    scenario: str
    ours: str
    figure: str
    relation: str
    bound: float
    rival: str | None = None


def _figures(measured: Mapping[str, Any]) -> dict[str, float]:
    return {
        "rate": measured["messages"] / measured["seconds"],
        "per_cpu": measured["messages"] / measured["cpu"],
        "busy": measured["cpu"] / measured["seconds"],
        "p50": measured["p50_us"] / 1000,
        "p99": measured["p99_us"] / 1000,
    }


def _echo(**options: float | str | bool) -> Callable[[str, float], Figures]:
    def measure(name: str, seconds: float) -> Figures:
        with serve(name) as server:
            measured = load.run("echo", server, seconds=seconds, **options)
        extra = {name: measured[name] for name in ("events_per_poll", "starving")}
        return _figures(measured) | extra | _beside(measured["beside"])

    return measure


def _beside(measured: Mapping[str, Any]) -> dict[str, float]:
    return {
        "blockers": measured["messages"] / measured["seconds"],
        "blockers_p50": measured["p50_us"] / 1000,
    }


def _hindered(name: str, seconds: float) -> Figures:
    alone = _echo(connections=64)(name, seconds)["rate"]
    hindered = _echo(connections=64, beside=BLOCKERS, beside_path="/block")(name, seconds)
    return {**hindered, "alone": alone, "kept": hindered["rate"] / alone}


def _handshakes(name: str, seconds: float) -> Figures:
    with serve(name) as server:
        return _figures(load.run("handshakes", server, seconds=seconds))


def _storm(name: str, seconds: float) -> Figures:
    with serve(name) as server:
        measured = load.run("storm", server, connections=CROWD)
    kept = {name: measured[name] for name in ("served", "refused", "failed", "seconds", "cpu")}
    return kept | {"p50_seconds": measured["p50_us"] / 1e6}


NOT_THREADS = (LIMIT, GENERATOR, *ASYNC_PEERS)
SCENARIOS = {
    "1x1": Scenario(
        "1 connection, 1 message in flight, 125 B", SERVERS, _echo(connections=1, spin=True)
    ),
    "64x1": Scenario("64 connections, 1 in flight, 125 B", SERVERS, _echo(connections=64)),
    "1000x1": Scenario(
        "1,000 connections, 1 in flight, 125 B", SERVERS, _echo(connections=1000, warm_up=1)
    ),
    "64x16": Scenario(
        "64 connections, 16 in flight, 125 B", SERVERS, _echo(connections=64, in_flight=16)
    ),
    "64KiB": Scenario(
        "8 connections, 1 in flight, 64 KiB", SERVERS, _echo(connections=8, size=65536)
    ),
    "hindered": Scenario(
        f"64 connections, 1 in flight, 125 B, beside {BLOCKERS} that block 200 ms in each message",
        (GENERATOR, THREAD),
        _hindered,
        HINDERED_COLUMNS,
    ),
    "handshakes": Scenario(
        "connect, upgrade, close, one after another", SERVERS, _handshakes, HANDSHAKE_COLUMNS
    ),
    "storm": Scenario(
        f"{CROWD:,} connections at once, one echo each", NOT_THREADS, _storm, STORM_COLUMNS
    ),
}
ECHOES = ("1x1", "64x1", "1000x1", "64x16", "64KiB")  # that have the limit beside them

AIMS = (
    Aim("64x1", GENERATOR, "per_cpu", ">=", 0.85, LIMIT),
    Aim("64x1", GENERATOR, "per_cpu", ">", 1.0, PICOWS),
    Aim("1000x1", GENERATOR, "per_cpu", ">=", 0.85, LIMIT),
    Aim("1000x1", GENERATOR, "per_cpu", ">", 1.0, PICOWS),
    Aim("64x16", GENERATOR, "per_cpu", ">=", 0.7, LIMIT),
    Aim("64x16", GENERATOR, "per_cpu", ">=", 5.0, PICOWS),
    Aim("64KiB", GENERATOR, "per_cpu", ">=", 0.9, LIMIT),
    Aim("1000x1", THREAD, "per_cpu", ">=", 10.0, WEBSOCKETS),
    Aim("hindered", GENERATOR, "kept", ">=", 0.7),
    Aim("hindered", GENERATOR, "p99", "<", 20.0),
    Aim("handshakes", GENERATOR, "per_cpu", ">", 1.0, PICOWS),
    Aim("storm", GENERATOR, "served", ">=", CROWD),
    Aim("storm", GENERATOR, "refused", "<=", 0),
    Aim("storm", GENERATOR, "seconds", "<", 2.0),
)
