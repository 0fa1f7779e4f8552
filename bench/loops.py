"""Two I/O loops beside one: ``make bench-loops``, on Linux, with any Python that has wsframe.

A handler computes for 100 us in every message of 64 connections. Server and load share all cores,
and wall time counts, because the processor time of a message is the same on two loops. Without a
GIL two loops compute at the same time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median

from . import load
from .aims import aligned
from .serving import LOAD_CORE, SERVER_CORE, BenchError, serve

CONNECTIONS = 64
LOOPS = (1, 2)
SERVER = "wsframe_loops"
DESCRIBE = """
import sys, wsframe
gil = getattr(sys, "_is_gil_enabled", lambda: True)()
kernels = "compiled" if wsframe.ACCELERATED else "pure"
print(f"Python {sys.version.split()[0]} {'with' if gil else 'without'} a GIL, {kernels} kernels")
"""


def main() -> None:
    """Measure in rounds, and print the rates and their ratio."""
    parser = argparse.ArgumentParser(description="Compare two I/O loops with one.")
    parser.add_argument(
        "--python", default=sys.executable, help="the Python of the server (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="duration of each run (%(default)s)"
    )
    arguments = parser.parse_args()
    if SERVER_CORE == LOAD_CORE:
        sys.exit("The server benches need two cores.")
    described = subprocess.run(
        [arguments.python, "-c", DESCRIBE], capture_output=True, text=True, check=False
    )
    if described.returncode:
        sys.exit(f"cannot use {arguments.python}: {described.stderr.strip()}")
    rates = [
        rates_of_round(arguments.python, arguments.seconds, number)
        for number in range(arguments.rounds)
    ]
    ratios = [two / one for one, two in rates]
    table: list[tuple[str, ...]] = [("loops", "msg/s", "ratio", "lowest", "highest")]
    medians = [f"{median(column):,.0f}" for column in zip(*rates, strict=True)]
    table.append(("1", medians[0], "", "", ""))
    table.append(
        ("2", medians[1], f"{median(ratios):.2f}", f"{min(ratios):.2f}", f"{max(ratios):.2f}")
    )
    print(described.stdout.strip())
    print("\n".join(aligned(table, left=(0,))))


def rates_of_round(python: str, seconds: float, number: int) -> tuple[float, float]:
    """Return the messages per second with one loop and with two, measured in turn."""
    print(f"round {number + 1}", file=sys.stderr, flush=True)
    found = {}
    for loops in LOOPS if number % 2 else reversed(LOOPS):
        with serve(SERVER, "echo", str(loops), python=python, pinned=False) as server:
            measured = load.run("echo", server, connections=CONNECTIONS, seconds=seconds)
        found[loops] = measured["messages"] / measured["seconds"]
    return found[1], found[2]


if __name__ == "__main__":
    try:
        main()
    except BenchError as failure:
        sys.exit(f"failed: {failure}")
