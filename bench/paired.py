"""Two builds of wsframe side by side: ``make bench-paired BEFORE=.venv-old/bin/python``, on Linux.

Each build is installed in its own environment. In each round both builds take turns in every
scenario, in a new process on one core, with the load on another. The result is the median ratio
within a round, because the machine's speed changes between rounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from statistics import median

from . import load
from .aims import aligned
from .serving import GENERATOR, LOAD_CORE, SERVER_CORE, BenchError, Server, serve

RECEIVERS = 1000
IDLE = 10_000

Measure = Callable[[Server, float], float]


def _echo(**options: float | str | bool) -> Measure:
    def measure(server: Server, seconds: float) -> float:
        return _per_cpu(load.run("echo", server, seconds=seconds, **options))

    return measure


def _broadcast(**options: float | str | bool) -> Measure:
    def measure(server: Server, seconds: float) -> float:
        with load.broadcast(server, connections=RECEIVERS, seconds=seconds, **options) as measured:
            return _per_cpu(measured)

    return measure


def _per_cpu(measured: dict[str, float]) -> float:
    return measured["messages"] / measured["cpu"]


def _idle(*, streams: bool) -> Measure:
    """Return the connections for each MiB of memory; more is better, as in all scenarios."""

    def measure(server: Server, seconds: float) -> float:
        before = server.memory()
        options: dict[str, float | str | bool] = (
            {"connections": 10, "beside": IDLE, "beside_path": "/events"}
            if streams
            else {"connections": IDLE}
        )
        with load.idle(server, **options):
            return IDLE / ((server.memory() - before) / 1024)

    return measure


# By name: the server's package, the server, and the figure; more is better.
SCENARIOS: dict[str, tuple[str, str, Measure]] = {
    "echo 64x1": ("echo", GENERATOR, _echo(connections=64)),
    "echo 1000x1": ("echo", GENERATOR, _echo(connections=1000, warm_up=1)),
    "echo 64x16": ("echo", GENERATOR, _echo(connections=64, in_flight=16)),
    "broadcast ws-1": ("fanout", "wsframe_topic", _broadcast()),
    "broadcast ws-8": ("fanout", "wsframe_topic", _broadcast(in_flight=8)),
    "broadcast sse-8": ("fanout", "wsframe_topic", _broadcast(streams=True, in_flight=8)),
    "idle WebSockets": ("echo", GENERATOR, _idle(streams=False)),
    "idle event streams": ("echo", GENERATOR, _idle(streams=True)),
}


def main() -> None:
    """Measure and print the medians."""
    parser = argparse.ArgumentParser(description="Compare two builds of wsframe.")
    parser.add_argument(
        "--before", required=True, help="the Python of the environment with the old build"
    )
    parser.add_argument(
        "--after", default=sys.executable, help="the Python of the environment with the new build"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="duration of each run (%(default)s)"
    )
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, help="only this scenario; may be repeated"
    )
    arguments = parser.parse_args()
    if SERVER_CORE == LOAD_CORE:
        sys.exit("The server benches need two cores.")
    builds = (arguments.before, arguments.after)
    chosen = {name: SCENARIOS[name] for name in arguments.scenario or SCENARIOS}
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        for name, (package, server_name, measure) in chosen.items():
            found = {}
            for python in builds if number % 2 else reversed(builds):
                with serve(server_name, package, python=python) as server:
                    found[python] = measure(server, arguments.seconds)
            results[name].append((found[builds[0]], found[builds[1]]))
    table: list[tuple[str, ...]] = [
        ("median of the rounds", "before", "after", "after / before", "lowest", "highest")
    ]
    for name, pairs in results.items():
        ratios = [after / before for before, after in pairs]
        before, after = (median(column) for column in zip(*pairs, strict=True))
        table.append(
            (
                name,
                f"{before:,.0f}",
                f"{after:,.0f}",
                f"{median(ratios):.3f}",
                f"{min(ratios):.2f}",
                f"{max(ratios):.2f}",
            )
        )
    print("\n".join(aligned(table, left=(0,))))
    print("Messages per CPU second of the server; idle: connections per MiB.")


if __name__ == "__main__":
    try:
        main()
    except BenchError as failure:
        sys.exit(f"failed: {failure}")
