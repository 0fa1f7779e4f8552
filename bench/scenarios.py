"""The scenarios of the echo servers, the servers, and the aims for wsframe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import load
from .comparison import Aim, Best, Figures, Scenario, figures_of
from .serving import (
    AIOHTTP,
    ASYNCIO,
    GENERATOR,
    LIBRARIES,
    LIMIT,
    NO_SPIN,
    PICOWS,
    PYTHON_LIMIT,
    THREAD,
    UVICORN,
    UVICORN_IMPLEMENTATIONS,
    UVICORN_WSFRAME,
    UVLOOP,
    UVLOOP_FASTNET,
    WEBSOCKETS,
    WEBSOCKETS_SYNC,
    serve,
    variants,
)

# README.md gives the reasons for this choice of loops.
PEERS = (
    *variants(PICOWS, UVLOOP, UVLOOP_FASTNET),
    *variants(AIOHTTP, UVLOOP),
    *variants(UVICORN, UVLOOP),
    *variants(WEBSOCKETS, UVLOOP_FASTNET),
)
TLS_PEERS = (
    *variants(PICOWS, UVLOOP, UVLOOP_FASTNET),
    *variants(AIOHTTP, UVLOOP, UVLOOP_FASTNET),
    *variants(UVICORN, UVLOOP),
    *variants(WEBSOCKETS, UVLOOP),
)
ALL_PEERS = tuple(name for library in LIBRARIES for name in variants(library))
UVICORN_OWN = (
    *variants(UVICORN, UVLOOP),
    *(name for name in UVICORN_IMPLEMENTATIONS if name != UVICORN_WSFRAME),
)
# The limit of Python only echoes.
ECHO_SERVERS = (LIMIT, PYTHON_LIMIT, GENERATOR, THREAD, *PEERS, UVICORN_WSFRAME)
ARENA_SERVERS = (LIMIT, GENERATOR, *PEERS)
TLS_SERVERS = (GENERATOR, *TLS_PEERS)
COMPUTING_PEERS = (*variants(PICOWS, UVLOOP), *variants(AIOHTTP, UVLOOP))

CROWD = 5000
BLOCKERS = 8
COMPUTERS = 16

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
    ("blockers' msg/s", "beside", ",.1f"),
    ("their p50 ms", "beside_p50", ",.0f"),
    ("busy", "busy", ".0%"),
    ("events/poll", "events_per_poll", ".1f"),
)
COMPUTING_COLUMNS = (
    ("msg/s", "rate", ",.0f"),
    ("p50 ms", "p50", ".2f"),
    ("p99 ms", "p99", ".2f"),
    ("computing msg/s", "beside", ",.0f"),
    ("their p50 ms", "beside_p50", ",.0f"),
    ("busy", "busy", ".0%"),
)
STORM_COLUMNS = (
    ("served", "served", ",.0f"),
    ("refused", "refused", ",.0f"),
    ("failed", "failed", ",.0f"),
    ("last after s", "seconds", ".2f"),
    ("p50 s", "p50_seconds", ".2f"),
    ("CPU s", "cpu", ".2f"),
)


def _echo(*, tls: bool = False, **options: float | str | bool) -> Callable[[str, float], Figures]:
    def measure(name: str, seconds: float) -> Figures:
        with serve(name, tls=tls) as server:
            measured = load.run("echo", server, seconds=seconds, **options)
        extra = {name: measured[name] for name in ("events_per_poll", "starving")}
        return figures_of(measured) | extra | _beside(measured["beside"])

    return measure


def _echoes(
    title: str, *servers: str, tls: bool = False, **options: float | str | bool
) -> Scenario:
    return Scenario(
        f"{title}, TLS" if tls else title,
        servers,
        _echo(tls=tls, **options),
        ECHO_COLUMNS,
        of_limit=LIMIT in servers,
        others=_others(servers),
        tls=tls,
    )


def _others(servers: tuple[str, ...]) -> tuple[str, ...]:
    """Return the variants of the libraries that are measured only on request."""
    known = dict.fromkeys((*ALL_PEERS, *UVICORN_IMPLEMENTATIONS))
    return tuple(name for name in known if name not in servers)


def _beside(measured: Mapping[str, Any]) -> dict[str, float]:
    return {
        "beside": measured["messages"] / measured["seconds"],
        "beside_p50": measured["p50_us"] / 1000,
    }


def _hindered(name: str, seconds: float) -> Figures:
    alone = _echo(connections=64)(name, seconds)["rate"]
    hindered = _echo(connections=64, beside=BLOCKERS, beside_path="/block")(name, seconds)
    return {**hindered, "alone": alone, "kept": hindered["rate"] / alone}


def _handshakes(tls: bool) -> Callable[[str, float], Figures]:
    def measure(name: str, seconds: float) -> Figures:
        with serve(name, tls=tls) as server:
            return figures_of(load.run("handshakes", server, seconds=seconds))

    return measure


def _storm(name: str, seconds: float) -> Figures:
    with serve(name) as server:
        measured = load.run("storm", server, connections=CROWD)
    kept = {name: measured[name] for name in ("served", "refused", "failed", "seconds", "cpu")}
    return kept | {"p50_seconds": measured["p50_us"] / 1e6}


SCENARIOS = {
    "1x1": _echoes(
        "1 connection, 1 message in flight, 125 B",
        *(LIMIT, PYTHON_LIMIT, GENERATOR, NO_SPIN, THREAD, *PEERS, UVICORN_WSFRAME),
        connections=1,
        spin=True,
    ),
    "64x1": _echoes(
        "64 connections, 1 in flight, 125 B", *ECHO_SERVERS, WEBSOCKETS_SYNC, connections=64
    ),
    "1000x1": _echoes(
        "1,000 connections, 1 in flight, 125 B",
        *ECHO_SERVERS,
        WEBSOCKETS_SYNC,
        connections=1000,
        warm_up=1,
    ),
    "64x16": _echoes(
        "64 connections, 16 in flight, 125 B", *ECHO_SERVERS, connections=64, in_flight=16
    ),
    "64KiB": _echoes(
        "8 connections, 1 in flight, 64 KiB", *ECHO_SERVERS, connections=8, size=65536
    ),
    "arena-1": _echoes(
        "512 connections, 1 in flight, 5 B", *ARENA_SERVERS, connections=512, size=5
    ),
    "arena-16": _echoes(
        "512 connections, batches of 16, 5 B",
        *ARENA_SERVERS,
        connections=512,
        size=5,
        in_flight=16,
        batch=True,
    ),
    "hindered": Scenario(
        f"64 connections, 1 in flight, 125 B, beside {BLOCKERS} that block 200 ms in each message",
        (GENERATOR, THREAD),
        _hindered,
        HINDERED_COLUMNS,
        of_limit=False,
    ),
    "computing": Scenario(
        f"64 connections, 1 in flight, 125 B, beside {COMPUTERS} that compute 1 ms in each message",
        (GENERATOR, *COMPUTING_PEERS),
        _echo(connections=64, beside=COMPUTERS, beside_path="/compute"),
        COMPUTING_COLUMNS,
        of_limit=False,
    ),
    "handshakes": Scenario(
        "connect, upgrade, close, one after another",
        (LIMIT, GENERATOR, THREAD, *PEERS, WEBSOCKETS_SYNC),
        _handshakes(tls=False),
        HANDSHAKE_COLUMNS,
        of_limit=False,
        others=_others(PEERS),
    ),
    "storm": Scenario(
        f"{CROWD:,} connections at once, one echo each",
        (LIMIT, GENERATOR, *PEERS),
        _storm,
        STORM_COLUMNS,
        of_limit=False,
        others=_others(PEERS),
    ),
    "tls-64x1": _echoes(
        "64 connections, 1 in flight, 125 B", *TLS_SERVERS, tls=True, connections=64
    ),
    "tls-64x16": _echoes(
        "64 connections, 16 in flight, 125 B",
        *TLS_SERVERS,
        tls=True,
        connections=64,
        in_flight=16,
    ),
    "tls-64KiB": _echoes(
        "8 connections, 1 in flight, 64 KiB", *TLS_SERVERS, tls=True, connections=8, size=65536
    ),
    "tls-handshakes": Scenario(
        "connect, TLS handshake, upgrade, close, one after another",
        TLS_SERVERS,
        _handshakes(tls=True),
        HANDSHAKE_COLUMNS,
        of_limit=False,
        others=_others(TLS_SERVERS),
        tls=True,
    ),
}
CHARTED = ("1x1", "64x1", "1000x1", "64x16", "64KiB")

C = Best(LIMIT, (LIMIT,))
BEST_PICOWS = Best("picows at its best", variants(PICOWS))
BEST_UVICORN = Best("the best of uvicorn's own", UVICORN_OWN)
BEST_PEER = Best("the best peer", ALL_PEERS)
WITHOUT_AIOFASTNET = Best(
    "the best on asyncio or uvloop",
    tuple(name for library in LIBRARIES for name in variants(library, ASYNCIO, UVLOOP)),
)

AIMS = (
    Aim("64x1", GENERATOR, "per_cpu", ">=", 0.80, C),
    Aim("64x1", GENERATOR, "per_cpu", ">=", 1.25, BEST_PICOWS),
    Aim("1000x1", GENERATOR, "per_cpu", ">=", 0.70, C),
    Aim("1000x1", GENERATOR, "per_cpu", ">=", 1.3, BEST_PICOWS),
    Aim("64x16", GENERATOR, "per_cpu", ">=", 0.55, C),
    Aim("64KiB", GENERATOR, "per_cpu", ">=", 0.90, C),
    Aim("1x1", GENERATOR, "per_cpu", ">=", 1.0, BEST_PICOWS),
    Aim("1x1", NO_SPIN, "per_cpu", ">=", 1.0, BEST_PICOWS),
    Aim("1x1", UVICORN_WSFRAME, "per_cpu", ">=", 1.2, BEST_UVICORN),
    Aim("64x1", UVICORN_WSFRAME, "per_cpu", ">=", 1.8, BEST_UVICORN),
    Aim("64x16", UVICORN_WSFRAME, "per_cpu", ">=", 6.0, BEST_UVICORN),
    Aim("64KiB", UVICORN_WSFRAME, "per_cpu", ">=", 2.0, BEST_UVICORN),
    Aim("1000x1", THREAD, "per_cpu", ">=", 0.30, C),
    Aim("hindered", GENERATOR, "kept", ">=", 0.7),
    Aim("hindered", GENERATOR, "p99", "<", 20.0),
    Aim("handshakes", GENERATOR, "per_cpu", ">=", 1.15, BEST_PICOWS),
    Aim("storm", GENERATOR, "served", ">=", CROWD),
    Aim("storm", GENERATOR, "refused", "<=", 0),
    Aim("storm", GENERATOR, "seconds", "<", 2.0),
    Aim("tls-64x1", GENERATOR, "per_cpu", ">", 1.0, WITHOUT_AIOFASTNET),
    Aim("tls-64x16", GENERATOR, "per_cpu", ">", 1.0, WITHOUT_AIOFASTNET),
    Aim("tls-64KiB", GENERATOR, "per_cpu", ">", 1.0, WITHOUT_AIOFASTNET),
    Aim("tls-handshakes", GENERATOR, "per_cpu", ">=", 0.95, BEST_PEER),
)
