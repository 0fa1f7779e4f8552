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
# Seconds that a reading client may wait for an expected answer.
ANSWER_TIMEOUT = 30.0
# Seconds within which the server must release everything after the last client has disconnected.
RELEASE_TIMEOUT = 30.0
# The largest ratio of memory in the last third of the run to that in the second.
GROWTH = 1.15


@dataclass
class Use:
    """The resources of the server's process."""

    files: int
    threads: int
    memory: int  # KiB

    @classmethod
    def of(cls, pid: int) -> Use:
        """Return the resources of a process."""
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        files = len(os.listdir(f"/proc/{pid}/fd"))
        return cls(files, int(status["Threads"]), int(status["VmRSS"].split()[0]))

    def __str__(self) -> str:
        return f"{self.files} files, {self.threads} threads, {self.memory / 1024:.1f} MiB"


class Soak:
    """The clients and their results.

    Args:
        port: the server's port.
        pid: the server's process id.
        connections: the number of concurrent honest clients.
        seed: the seed of all random choices.

    Attributes:
        uses: the server's resources at each report.
        opened: the number of clients so far.
        verified: the number of correct messages and events of disconnected clients, by kind.
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
        """Keep the clients busy for this time.

        Raises:
            WrongError: the server sent something wrong, or an answer is overdue.
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
        """Disconnect all clients."""
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
        """Update the events to wait for, or remove a client that has ended."""
        if client.over:
            self._clients.discard(client)
            if not isinstance(client, HostileClient):
                self.verified[type(client).__name__] += client.verified
            self._wait_for(client, 0)
            client.sock.close()
            return
        if not client.expects_answer or not client.reads:
            client.progress = now
        elif now > client.progress + ANSWER_TIMEOUT:
            raise WrongError(f"no answer for {ANSWER_TIMEOUT:.0f} s: {vars(client)}")
        self._wait_for(client, READ * client.reads | WRITE * client.has_unsent)

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
            f"verified by disconnected clients: {verified}",
            flush=True,
        )


def main() -> None:
    """Start the server, run the soak, and check that the server releases everything."""
    parser = argparse.ArgumentParser(description="Run the server under thousands of clients.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.minutes < 1:
        parser.error("--minutes must be at least 1, because thirds of the run are compared")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # glibc has up to 8 heaps a core, and each keeps its peak size. With hundreds of threads this
    # growth would hide a leak.
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
    """Make the server start its log thread, which never ends."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while sock.recv(1 << 16):
            pass
    sleep(1)


def soak(port: int, pid: int, arguments: argparse.Namespace) -> str | None:
    """Run the soak on a server; return a description of the fault, or None."""
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
    deadline = monotonic() + RELEASE_TIMEOUT
    while (after := Use.of(pid)).files > before.files or after.threads > before.threads:
        if monotonic() > deadline:
            return f"not released: {after} (before the run: {before})"
        sleep(0.1)
    third = len(run.uses) // 3
    first, last = (
        median(use.memory for use in part)
        for part in (run.uses[third : 2 * third], run.uses[-third:])
    )
    print(f"after:  {after}; {run.opened:,} opened, {run.verified.total():,} verified")
    print(f"memory in the last third of the run: {last / first:.2f} times that in the second third")
    return "memory grows" if last > GROWTH * first else None


if __name__ == "__main__":
    main()
