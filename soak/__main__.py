"""Run the soak: ``python -m soak --minutes 10``."""

from __future__ import annotations

import argparse
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from time import monotonic, sleep

from .clients import Client, StreamClient, WebSocketClient, WrongError
from .hostile import SHARES, HostileClient

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

REPORT_INTERVAL = 10.0
# How long a client that reads may be owed something, in seconds.
PATIENCE = 30.0
# How long the server has to become as it was, when all have left.
SETTLING = 30.0
# How much more memory the last third of the time may see than the second.
GROWTH = 1.15


@dataclass
class Use:
    """What the server's process holds."""

    files: int
    threads: int
    memory: int  # KiB

    @classmethod
    def of(cls, pid: int) -> Use:
        """Look at a process."""
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        files = len(os.listdir(f"/proc/{pid}/fd"))
        return cls(files, int(status["Threads"]), int(status["VmRSS"].split()[0]))

    def __str__(self) -> str:
        return f"{self.files} files, {self.threads} threads, {self.memory / 1024:.1f} MiB"


class Soak:
    """The clients, and what they have seen.

    Args:
        port: the server's.
        pid: its process.
        connections: how many clients there are at once.
        seed: of all that is random.

    Attributes:
        uses: what the server held at each report.
        opened: how many clients there were.
        verified: how many messages and events were right, of those that have left.
    """

    def __init__(self, port: int, pid: int, connections: int, seed: int) -> None:
        self._port = port
        self._pid = pid
        self._connections = connections
        self._random = Random(seed)
        self._selector = selectors.DefaultSelector()
        self._clients: set[Client] = set()
        self._waits: dict[Client, int] = {}
        self.uses: list[Use] = []
        self.opened = 0
        self.verified: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        """Keep that many clients busy for so long.

        Raises:
            WrongError: the server was wrong, or owes something for too long.
        """
        begin = now = monotonic()
        report = begin + REPORT_INTERVAL
        while now < begin + seconds:
            honest = sum(not isinstance(client, HostileClient) for client in self._clients)
            for _ in range(min(20, self._connections - honest)):
                kind = StreamClient if self._random.random() < 0.3 else WebSocketClient
                self._open(kind, now)
            self._open_hostile(now)
            for key, events in self._selector.select(0.02):
                client: Client = key.data
                if events & WRITE:
                    client.send()
                if events & READ:
                    client.read(now)
            now = monotonic()
            for client in tuple(self._clients):
                if client.wake <= now and not client.over:
                    client.act(now)
                self._attend(client, now)
            if now > report:
                report += REPORT_INTERVAL
                self._report(now - begin)

    def end(self) -> None:
        """Let all leave."""
        for client in tuple(self._clients):
            client.close()
            self._attend(client, 0)
        self._selector.close()

    def _open_hostile(self, now: float) -> None:
        present = Counter(map(type, self._clients))
        for kind, share in SHARES.items():
            if present[kind] < share * self._connections / 1000:
                self._open(kind, now)

    def _open(self, kind: type[Client], now: float) -> None:
        client = kind(self._port, self._random, now)
        self._clients.add(client)
        self._wait_for(client, WRITE)
        self.opened += 1

    def _attend(self, client: Client, now: float) -> None:
        """Wait for what the client can do now, or bury it."""
        if client.over:
            self._clients.discard(client)
            if not isinstance(client, HostileClient):
                self.verified[type(client).__name__] += client.verified
            self._wait_for(client, 0)
            client.sock.close()
            return
        if not client.waits or not client.reads:
            client.progress = now
        elif now > client.progress + PATIENCE:
            raise WrongError(f"nothing came for {PATIENCE:.0f} s: {vars(client)}")
        self._wait_for(client, READ * client.reads | WRITE * client.owes)

    def _wait_for(self, client: Client, events: int) -> None:
        before = self._waits.pop(client, 0)
        if events:
            self._waits[client] = events
        if not before and events:
            self._selector.register(client.sock, events, client)
        elif before and not events:
            self._selector.unregister(client.sock)
        elif before != events:
            self._selector.modify(client.sock, events, client)

    def _report(self, seconds: float) -> None:
        use = Use.of(self._pid)
        self.uses.append(use)
        verified = ", ".join(f"{count:,} {name}" for name, count in sorted(self.verified.items()))
        print(
            f"{seconds:5.0f} s: {len(self._clients):,} clients, {self.opened:,} opened; {use}; "
            f"verified by those that left: {verified}",
            flush=True,
        )


def main() -> None:
    """Start the server, soak it, and see that nothing is left."""
    parser = argparse.ArgumentParser(description="Soak the server.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.minutes < 1:
        parser.error("a minute at least, so that the thirds of the time can be compared")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # The C library of Linux has 8 heaps a core for threads to share, and each keeps the most that
    # it ever held: with hundreds of threads that grows for long, and hides what is looked for.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "soak.app"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            fault = soak(port, server.pid, arguments)
        finally:
            server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    if fault is None and code:
        fault = f"the server ended with {code}"
    sys.exit(f"FAILED: {fault}" if fault else None)


def cause_a_log_line(port: int) -> None:
    """Have the server start its thread for the log, which stays."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while sock.recv(1 << 16):
            pass
    sleep(1)


def soak(port: int, pid: int, arguments: argparse.Namespace) -> str | None:
    """Soak a server; what was wrong with it, or None."""
    cause_a_log_line(port)
    before = Use.of(pid)
    print(f"before: {before}", flush=True)
    run = Soak(port, pid, arguments.connections, arguments.seed)
    try:
        run.run(60 * arguments.minutes)
    except WrongError as wrong:
        return str(wrong)
    finally:
        run.end()
    deadline = monotonic() + SETTLING
    while (after := Use.of(pid)).files > before.files or after.threads > before.threads:
        if monotonic() > deadline:
            return f"{after} are left of {before}"
        sleep(0.1)
    third = len(run.uses) // 3
    first, last = (
        median(use.memory for use in part)
        for part in (run.uses[third : 2 * third], run.uses[-third:])
    )
    print(f"after:  {after}; {run.opened:,} opened, {run.verified.total():,} verified")
    print(f"memory in the last third of the time: {last / first:.2f} of that in the second")
    return "memory grows" if last > GROWTH * first else None


if __name__ == "__main__":
    main()
