"""Echo servers side by side: ``make bench-servers``, on Linux.

Each server is a process of its own on one core, the load is this process on another. The servers
take turns, round after round, and the median of the rounds counts. What to compare by is messages
per second of the server's processor time: other work on the machine disturbs it least.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from statistics import median
from time import monotonic, sleep

from .load import Echoes, run

OURS, PEER = "wsframe_generator", "picows_uvloop"
SERVERS = (OURS, "wsframe_thread", PEER, "websockets_sync")
SCENARIOS = ((64, 16), (64, 1))  # connections, and messages each has in flight
AIM = 3.0  # times the peer's rate at 64 connections with 16 messages in flight


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="Compare echo servers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each run")
    arguments = parser.parse_args()

    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    runs: dict[tuple[int, int], dict[str, list[Echoes]]] = {
        scenario: {name: [] for name in SERVERS} for scenario in SCENARIOS
    }
    for _ in range(arguments.rounds):
        for (connections, in_flight), by_server in runs.items():
            for name, echoes in by_server.items():
                with ExitStack() as stack:
                    port, pid = start(stack, name, cores[0])
                    echoes.append(
                        run(
                            port,
                            pid,
                            connections=connections,
                            in_flight=in_flight,
                            seconds=arguments.seconds,
                        )
                    )
    for (connections, in_flight), by_server in runs.items():
        print(f"\n{connections} connections, {in_flight} in flight, 125 B text")
        _print_table(by_server)
    crowd = runs[SCENARIOS[0]]
    ratio = median(e.per_cpu_second for e in crowd[OURS]) / median(
        e.per_cpu_second for e in crowd[PEER]
    )
    word = "met" if ratio >= AIM else "MISSED"
    print(f"\n{OURS} / {PEER}, 64 connections, 16 in flight: {ratio:.1f}, aim {AIM}: {word}")


def _print_table(by_server: dict[str, list[Echoes]]) -> None:
    print(f"{'':20}{'msg/s':>12}{'msg/CPU s':>12}{'min..max':>22}{'busy':>7}{'events/poll':>13}")
    for name, echoes in by_server.items():
        rates = sorted(e.per_cpu_second for e in echoes)
        print(
            f"{name:20}{median(e.per_second for e in echoes):12,.0f}{median(rates):12,.0f}"
            f"{f'{rates[0]:,.0f}..{rates[-1]:,.0f}':>22}"
            f"{median(e.busy for e in echoes):7.0%}"
            f"{median(e.events_per_poll for e in echoes):13.1f}"
        )


def start(stack: ExitStack, name: str, core: int | None = None) -> tuple[int, int]:
    """Start an echo server, which ends with the stack; return its port and process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", f"bench.echo.{name}", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(process.wait)
    stack.callback(process.kill)
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
    deadline = monotonic() + 10
    while monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return port, process.pid
        sleep(0.02)
    sys.exit(f"{name} does not start")


if __name__ == "__main__":
    main()
