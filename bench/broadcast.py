"""One client publishes to many: ``make bench-broadcast``, on Linux; README.md explains it.

WebSockets and event streams receive messages as fast as the slowest client reads them. With
``--crowd``, ten thousand event streams receive ten events a second for a minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import load
from .comparison import Aim, Best, Figures, Scenario, figures_of
from .rounds import compare, parser_for
from .serving import (
    ASYNCIO,
    ASYNCIO_FASTNET,
    LIMIT,
    PICOWS,
    UVLOOP,
    WEBSOCKETS,
    WEBSOCKETS_SYNC,
    serve,
    variants,
)

TOPIC, STARLETTE = "wsframe_topic", "sse_starlette"
TOPIC_IN_STARLETTE = "wsframe_starlette"
PEERS = (
    *variants(PICOWS, ASYNCIO, UVLOOP),
    *variants(WEBSOCKETS, ASYNCIO_FASTNET),
)
OTHERS = tuple(name for name in variants(PICOWS) + variants(WEBSOCKETS) if name not in PEERS)
WEBSOCKET_SERVERS = (LIMIT, TOPIC, *PEERS, WEBSOCKETS_SYNC)
STREAM_SERVERS = (LIMIT, TOPIC, TOPIC_IN_STARLETTE, STARLETTE)
RECEIVERS = 1000
CROWD = 10_000
CROWD_RATE = 10  # events a second
CROWD_SECONDS = 60.0  # the default
FEW = 10

COLUMNS = (
    ("delivered/s", "rate", ",.0f"),
    ("per CPU s", "per_cpu", ",.0f"),
    ("busy", "busy", ".0%"),
    ("load's", "load_busy", ".0%"),
    ("p50 ms", "p50", ".1f"),
    ("p99 ms", "p99", ".1f"),
    ("per read", "per_read", ".1f"),
)
CROWD_COLUMNS = (
    ("events", "published", ",.0f"),
    ("delivered/s", "rate", ",.0f"),
    ("busy", "busy", ".0%"),
    ("load's", "load_busy", ".0%"),
    ("p50 ms", "p50", ".1f"),
    ("p99 ms", "p99", ".1f"),
    ("p99.9 ms", "p999", ".1f"),
    ("longest ms", "longest", ".1f"),
    ("KiB each", "kib", ".2f"),
    ("at most", "peak_kib", ".2f"),
)


def main() -> None:
    """Measure and print the tables."""
    parser = parser_for("Compare servers that broadcast.", SCENARIOS)
    parser.add_argument(
        "--crowd",
        action="store_true",
        help=f"send {CROWD_RATE} events a second to many clients, once, for {CROWD_SECONDS:.0f} s",
    )
    parser.add_argument(
        "--clients", type=int, default=CROWD, help="number of clients of --crowd (%(default)s)"
    )
    arguments = parser.parse_args()
    if arguments.crowd:
        parser.set_defaults(rounds=1, seconds=CROWD_SECONDS)
        arguments = parser.parse_args()
    scenarios = {"crowd": crowd(arguments.clients)} if arguments.crowd else SCENARIOS
    compare(scenarios, AIMS, arguments)


def _figures(measured: Mapping[str, Any]) -> dict[str, float]:
    return {
        **figures_of(measured),
        "load_busy": measured["load_cpu"] / measured["seconds"],
        "p999": measured["p999_us"] / 1000,
        "longest": measured["longest_us"] / 1000,
        "published": measured["published"],
        "per_read": measured["per_read"],
    }


def _scenario(title: str, servers: tuple[str, ...], **options: float | str | bool) -> Scenario:
    def measure(name: str, seconds: float) -> Figures:
        with (
            serve(name, "fanout") as server,
            load.broadcast(server, connections=RECEIVERS, seconds=seconds, **options) as measured,
        ):
            return _figures(measured)

    others = OTHERS if servers is WEBSOCKET_SERVERS else ()
    return Scenario(f"{RECEIVERS:,} {title}, 125 B", servers, measure, COLUMNS, others=others)


def crowd(clients: int) -> Scenario:
    """Return the scenario with this number of event streams."""

    def measure(name: str, seconds: float) -> Figures:
        with serve(name, "fanout") as server:
            # Fill the topic's history first, so that only memory for each client is measured.
            with load.broadcast(server, streams=True, connections=FEW, in_flight=FEW):
                pass
            before = server.memory()
            with load.broadcast(
                server,
                streams=True,
                connections=clients,
                rate=CROWD_RATE,
                in_flight=round((seconds + 10) * CROWD_RATE),
                seconds=seconds,
            ) as measured:
                each = (server.memory() - before) / clients
                at_most = (server.peak() - before) / clients
        return _figures(measured) | {"kib": each, "peak_kib": at_most}

    title = f"{clients:,} event streams, {CROWD_RATE} events of 125 B a second to each"
    return Scenario(title, (LIMIT, TOPIC), measure, CROWD_COLUMNS, of_limit=False)


SCENARIOS = {
    "ws-1": _scenario("WebSockets, 1 message in flight", WEBSOCKET_SERVERS),
    "ws-8": _scenario("WebSockets, 8 messages in flight", WEBSOCKET_SERVERS, in_flight=8),
    "sse-1": _scenario("event streams, 1 event in flight", STREAM_SERVERS, streams=True),
    "sse-8": _scenario(
        "event streams, 8 events in flight", STREAM_SERVERS, streams=True, in_flight=8
    ),
}

C = Best(LIMIT, (LIMIT,))

AIMS = (
    Aim("ws-8", TOPIC, "per_cpu", ">=", 0.80, C),
    Aim("ws-1", TOPIC, "per_cpu", ">=", 1.2, Best("picows at its best", variants(PICOWS))),
    Aim("sse-8", TOPIC, "per_cpu", ">=", 0.80, C),
    Aim("sse-8", TOPIC_IN_STARLETTE, "per_cpu", ">=", 4.0, Best(STARLETTE, (STARLETTE,))),
    Aim("crowd", TOPIC, "kib", "<=", 3.0),
)


if __name__ == "__main__":
    main()
