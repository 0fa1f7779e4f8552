"""The scenarios of the echo servers, the servers, and the aims for wsframe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import load
from .comparison import Aim, Figures, Scenario, figures_of
from .serving import (
    ASYNC_PEERS,
    GENERATOR,
    LIMIT,
    PICOWS,
    PYTHON_LIMIT,
    SERVERS,
    THREAD,
    WEBSOCKETS,
    serve,
)

# The limit of Python only echoes.
ECHO_SERVERS = (LIMIT, PYTHON_LIMIT, *SERVERS[1:])
CROWD = 5000
BLOCKERS = 8

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


def _echo(**options: float | str | bool) -> Callable[[str, float], Figures]:
    def measure(name: str, seconds: float) -> Figures:
        with serve(name) as server:
            measured = load.run("echo", server, seconds=seconds, **options)
        extra = {name: measured[name] for name in ("events_per_poll", "starving")}
        return figures_of(measured) | extra | _beside(measured["beside"])

    return measure


def _echoes(title: str, **options: float | str | bool) -> Scenario:
    return Scenario(title, ECHO_SERVERS, _echo(**options), ECHO_COLUMNS)


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
        return figures_of(load.run("handshakes", server, seconds=seconds))


def _storm(name: str, seconds: float) -> Figures:
    with serve(name) as server:
        measured = load.run("storm", server, connections=CROWD)
    kept = {name: measured[name] for name in ("served", "refused", "failed", "seconds", "cpu")}
    return kept | {"p50_seconds": measured["p50_us"] / 1e6}


NOT_THREADS = (LIMIT, GENERATOR, *ASYNC_PEERS)
SCENARIOS = {
    "1x1": _echoes("1 connection, 1 message in flight, 125 B", connections=1, spin=True),
    "64x1": _echoes("64 connections, 1 in flight, 125 B", connections=64),
    "1000x1": _echoes("1,000 connections, 1 in flight, 125 B", connections=1000, warm_up=1),
    "64x16": _echoes("64 connections, 16 in flight, 125 B", connections=64, in_flight=16),
    "64KiB": _echoes("8 connections, 1 in flight, 64 KiB", connections=8, size=65536),
    "hindered": Scenario(
        f"64 connections, 1 in flight, 125 B, beside {BLOCKERS} that block 200 ms in each message",
        (GENERATOR, THREAD),
        _hindered,
        HINDERED_COLUMNS,
        of_limit=False,
    ),
    "handshakes": Scenario(
        "connect, upgrade, close, one after another",
        SERVERS,
        _handshakes,
        HANDSHAKE_COLUMNS,
        of_limit=False,
    ),
    "storm": Scenario(
        f"{CROWD:,} connections at once, one echo each",
        NOT_THREADS,
        _storm,
        STORM_COLUMNS,
        of_limit=False,
    ),
}
ECHOES = tuple(key for key, scenario in SCENARIOS.items() if scenario.of_limit)

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
    Aim("handshakes", GENERATOR, "rate", ">", 1.0, PICOWS),
    Aim("handshakes", GENERATOR, "per_cpu", ">", 1.0, PICOWS),
    Aim("storm", GENERATOR, "served", ">=", CROWD),
    Aim("storm", GENERATOR, "refused", "<=", 0),
    Aim("storm", GENERATOR, "seconds", "<", 2.0),
)
