"""Two builds of wsframe side by side: ``make bench-paired BEFORE=.venv-old/bin/python``, on Linux.

Each build is installed in its own environment. In each round both builds take turns in every
scenario, in a new process on one core, with the load on another. The result is the median ratio
within a round, because the machine's speed changes between rounds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from . import load
from .aims import aligned
from .native import program
from .serving import GENERATOR, LOAD_CORE, SERVER_CORE, BenchError, Server, on_core, serve

RECEIVERS = 1000
IDLE = 10_000
COMPUTERS = 16

PER_CPU, P50, P99, PER_MIB = "per CPU s", "p50 ms", "p99 ms", "per MiB"
LOWER_IS_BETTER = {P50, P99}

# The figures of a build by name, measured with its Python for a number of seconds.
Measure = Callable[[str, float], Mapping[str, float]]


def _figures(measured: Mapping[str, Any]) -> dict[str, float]:
    return {
        PER_CPU: measured["messages"] / measured["cpu"],
        P50: measured["p50_us"] / 1000,
        P99: measured["p99_us"] / 1000,
    }


def _on_server(
    name: str,
    package: str,
    figures: tuple[str, ...],
    measure: Callable[[Server, float], Mapping[str, float]],
    *,
    tls: bool = False,
) -> Measure:
    """Return a scenario that measures a new process of a server, and reports these figures."""

    def measure_build(python: str, seconds: float) -> dict[str, float]:
        with serve(name, package, python=python, tls=tls) as server:
            found = measure(server, seconds)
        return {figure: found[figure] for figure in figures}

    return measure_build


def _echo(*figures: str, tls: bool = False, **options: float | str | bool) -> Measure:
    def measure(server: Server, seconds: float) -> Mapping[str, float]:
        return _figures(load.run("echo", server, seconds=seconds, **options))

    return _on_server(GENERATOR, "echo", figures or (PER_CPU,), measure, tls=tls)


def _handshakes() -> Measure:
    def measure(server: Server, seconds: float) -> Mapping[str, float]:
        return _figures(load.run("handshakes", server, seconds=seconds))

    return _on_server(GENERATOR, "echo", (PER_CPU,), measure)


def _broadcast(**options: float | str | bool) -> Measure:
    def measure(server: Server, seconds: float) -> Mapping[str, float]:
        with load.broadcast(server, connections=RECEIVERS, seconds=seconds, **options) as measured:
            return _figures(measured)

    return _on_server("wsframe_topic", "fanout", (PER_CPU,), measure)


def _idle(*, streams: bool) -> Measure:
    """Return a scenario with the number of connections for each MiB of memory."""

    def measure(server: Server, seconds: float) -> Mapping[str, float]:
        before = server.memory()
        options: dict[str, float | str | bool] = (
            {"connections": 10, "beside": IDLE, "beside_path": "/events"}
            if streams
            else {"connections": IDLE}
        )
        with load.idle(server, **options):
            return {PER_MIB: IDLE / ((server.memory() - before) / 1024)}

    return _on_server(GENERATOR, "echo", (PER_MIB,), measure)


def _codec(python: str, seconds: float) -> dict[str, float]:
    process = subprocess.run(
        [python, "-m", "bench.codec_speed", str(seconds)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: on_core(SERVER_CORE),
    )
    if process.returncode:
        raise BenchError(f"the codec failed: {process.stderr.strip()}")
    return {PER_CPU: float(process.stdout)}


SCENARIOS: dict[str, Measure] = {
    "codec": _codec,
    "echo 1x1": _echo(PER_CPU, P50, P99, connections=1, spin=True),
    "echo 64x1": _echo(connections=64),
    "echo 1000x1": _echo(connections=1000, warm_up=1),
    "echo 64x16": _echo(connections=64, in_flight=16),
    "echo arena-1": _echo(connections=512, size=5),
    "echo arena-16": _echo(connections=512, size=5, in_flight=16, batch=True),
    "echo computing": _echo(
        P50, P99, connections=64, beside=COMPUTERS, beside_path="/compute", warm_up=0.5
    ),
    "handshakes": _handshakes(),
    "tls 64x1": _echo(tls=True, connections=64),
    "broadcast ws-1": _broadcast(),
    "broadcast ws-8": _broadcast(in_flight=8),
    "broadcast sse-8": _broadcast(streams=True, in_flight=8),
    "idle WebSockets": _idle(streams=False),
    "idle event streams": _idle(streams=True),
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
    if any(name.startswith("tls") for name in chosen):
        program("load_tls")  # a missing header is reported here, and not after minutes
    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        for name, measure in chosen.items():
            found = {
                build: measure(builds[build], arguments.seconds)
                for build in ((0, 1) if number % 2 else (1, 0))
            }
            before, after = found[0], found[1]
            for figure in before:
                pairs = results.setdefault((name, figure), [])
                pairs.append((before[figure], after[figure]))
    print("\n".join(_table(results)))
    print(
        "Messages or handshakes per CPU second of the server; latencies; idle connections per MiB."
    )


def _table(results: Mapping[tuple[str, str], list[tuple[float, float]]]) -> list[str]:
    """Return the lines of the table, with the medians of the rounds."""
    heads = ("before", "after", "after / before", "lowest", "highest", "better")
    table: list[tuple[str, ...]] = [("median of the rounds", "figure", *heads)]
    for (name, figure), pairs in results.items():
        ratios = [after / before for before, after in pairs]
        form = ",.3f" if figure in LOWER_IS_BETTER else ",.0f"
        table.append(
            (
                name,
                figure,
                *(format(median(column), form) for column in zip(*pairs, strict=True)),
                f"{median(ratios):.3f}",
                f"{min(ratios):.2f}",
                f"{max(ratios):.2f}",
                "lower" if figure in LOWER_IS_BETTER else "higher",
            )
        )
    return aligned(table, left=(0, 1, 7))


if __name__ == "__main__":
    try:
        main()
    except BenchError as failure:
        sys.exit(f"failed: {failure}")
