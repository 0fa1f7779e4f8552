"""The cost of idle connections to an echo server: ``make bench-idle``, on Linux.

The load holds idle WebSockets or event streams and reads the server's threads and memory from
``/proc``. Then it measures echoes: on one of a few WebSockets, and on one of all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from . import load
from .aims import aligned
from .scenarios import PEERS
from .serving import (
    GENERATOR,
    LIMIT,
    LOAD_CORE,
    SERVER_CORE,
    THREAD,
    WEBSOCKETS_SYNC,
    BenchError,
    serve,
)

SERVERS = (LIMIT, GENERATOR, THREAD, *PEERS, WEBSOCKETS_SYNC)

FEW = 10
ECHOES = 2000


def main() -> None:
    """Measure each server in its own process, and print a table."""
    parser = argparse.ArgumentParser(description="Measure the cost of idle connections.")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument(
        "--peers", type=int, default=2000, help="connections to the other servers (%(default)s)"
    )
    parser.add_argument(
        "--server", action="append", choices=SERVERS, help="only this server; may be repeated"
    )
    arguments = parser.parse_args()
    if SERVER_CORE == LOAD_CORE:
        sys.exit("The server bench needs two cores.")

    table: list[tuple[str, ...]] = [
        ("", "connections", "threads", "KiB each", f"p50 us, {FEW}", "p99", "p50 us, all", "p99")
    ]
    for name in arguments.server or SERVERS:
        count = arguments.connections if name in (LIMIT, GENERATOR) else arguments.peers
        for streams in (False, True) if name == GENERATOR else (False,):
            title = f"{name}, event streams" if streams else name
            print(f"{title}, {count:,} connections", file=sys.stderr, flush=True)
            try:
                table.append((title, f"{count:,}", *measure(name, count, streams)))
            except BenchError as failure:
                print(f"failed: {failure}", file=sys.stderr)
    print("\n".join(aligned(table, left=(0,))))


def measure(name: str, count: int, streams: bool) -> Iterator[str]:
    """Return a server's cells; with ``streams``, many event streams and few WebSockets."""
    options: dict[str, float | str | bool] = (
        {"connections": FEW, "beside": count, "beside_path": "/events"}
        if streams
        else {"connections": count}
    )
    with serve(name) as server:
        with load.idle(server, connections=FEW) as held:
            held.echo(ECHOES)
            few = held.echo(ECHOES)
        before = server.memory()
        with load.idle(server, **options) as held:
            yield f"{server.threads():,}"
            yield f"{(server.memory() - before) / count:.1f}"
            for measured in (few, held.echo(ECHOES)):
                yield f"{measured['p50_us']:.0f}"
                yield f"{measured['p99_us']:.0f}"


if __name__ == "__main__":
    main()
