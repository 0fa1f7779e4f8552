"""What connections that wait cost an echo server: ``python -m bench.idle``, on Linux.

Opens WebSockets that say nothing, and reads the server's threads and memory from ``/proc``.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from .data import TEXT, frame
from .load import Client
from .servers import SERVERS, start


def main() -> None:
    """Measure each server in a process of its own, and print a line for each."""
    parser = argparse.ArgumentParser(description="Count what idle connections cost.")
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("servers", nargs="*", default=SERVERS)
    arguments = parser.parse_args()
    print(f"{arguments.connections} idle connections{'threads':>12}{'KiB each':>12}")
    for name in arguments.servers:
        with ExitStack() as stack:
            port, pid = start(stack, name)
            before = _memory(pid)
            clients = []
            for _ in range(arguments.connections):
                clients.append(Client(port, frame(TEXT, b"x")))
                stack.callback(clients[-1].sock.close)
            each = (_memory(pid) - before) / arguments.connections
            print(f"{name:>21}{_status(pid, 'Threads'):>17}{each:12.1f}")


def _memory(pid: int) -> int:
    return _status(pid, "VmRSS")


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise LookupError(field)


if __name__ == "__main__":
    main()
