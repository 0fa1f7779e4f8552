"""The instructions per message of the echo servers of two builds, counted by valgrind.

``make bench-instructions BEFORE=.venv-old/bin/python``. Unlike a time, the count hardly depends on
other work of the machine. Each server runs twice, with few messages and with many, and the
difference excludes its start and stop. The server is suspended while the clients send, so that its
loop finds the same sockets ready in every run.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import monotonic, sleep

from .serving import GENERATOR, BenchError

CONNECTIONS = 64
IN_FLIGHT = 4
FEW, MANY = 40, 440  # rounds; in each, all messages of all connections are answered
START_TIMEOUT = 120.0  # seconds; a program is about fifty times slower under valgrind
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
PAYLOAD = b"x" * 64
MASKED = b"\x81" + bytes([0x80 | len(PAYLOAD)]) + b"\0\0\0\0" + PAYLOAD  # a mask of zeros
ANSWER = b"\x81" + bytes([len(PAYLOAD)]) + PAYLOAD


def count(python: str, rounds: int) -> int:
    """Return the instructions of a server process with this number of rounds.

    Raises:
        BenchError: the server did not start, or sent a wrong answer.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with TemporaryDirectory() as directory:
        output = Path(directory, "counts")
        process = subprocess.Popen(
            [
                *("valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"),
                *(python, "-m", f"bench.echo.{GENERATOR}", str(port)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        try:
            _exchange(port, process.pid, rounds)
            process.send_signal(signal.SIGTERM)
            process.wait(START_TIMEOUT)
        finally:
            process.kill()
            process.wait()
        found = re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.MULTILINE)
    if found is None:
        raise BenchError("valgrind has written no counts")
    return int(found[1])


def _exchange(port: int, pid: int, rounds: int) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(_connect(port)) for _ in range(CONNECTIONS)]
        for client in clients:
            client.sendall(REQUEST)
            head = b""
            while b"\r\n\r\n" not in head:
                head += _receive(client, 4096)
        for _ in range(rounds):
            _wait_until_asleep(pid)
            os.kill(pid, signal.SIGSTOP)
            for client in clients:
                client.sendall(MASKED * IN_FLIGHT)
            os.kill(pid, signal.SIGCONT)
            for client in clients:
                missing = ANSWER * IN_FLIGHT
                while missing:
                    data = _receive(client, len(missing))
                    if not missing.startswith(data):
                        raise BenchError("the server sent a wrong answer")
                    missing = missing[len(data) :]


def _wait_until_asleep(pid: int) -> None:
    """Wait until no thread of the server runs: then its loop has stopped polling."""
    while True:
        states = [path.read_text().rpartition(")")[2][1] for path in _threads(pid)]
        if set(states) == {"S"}:
            return
        sleep(0.001)


def _threads(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").glob("*/stat"))


def _receive(client: socket.socket, size: int) -> bytes:
    data = client.recv(size)
    if not data:
        raise BenchError("the server has closed a connection")
    return data


def _connect(port: int) -> socket.socket:
    deadline = monotonic() + START_TIMEOUT
    while monotonic() < deadline:
        with suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), START_TIMEOUT)
        sleep(0.1)
    raise BenchError("the server does not start under valgrind")


def per_message(python: str) -> float:
    """Return the server's instructions for one message."""
    messages = (MANY - FEW) * CONNECTIONS * IN_FLIGHT
    return (count(python, MANY) - count(python, FEW)) / messages


def main() -> None:
    """Count instructions, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description="Compare the instructions of two builds.")
    parser.add_argument(
        "--before", required=True, help="the Python of the environment with the old build"
    )
    parser.add_argument(
        "--after", default=sys.executable, help="the Python of the environment with the new build"
    )
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    pairs = [
        (per_message(arguments.before), per_message(arguments.after))
        for _ in range(arguments.rounds)
    ]
    for name, column in zip(("before", "after"), zip(*pairs, strict=True), strict=True):
        print(f"{name}: {median(column):,.0f} instructions per message")
    print(f"after / before: {median(after / before for before, after in pairs):.3f}")


if __name__ == "__main__":
    try:
        main()
    except BenchError as failure:
        sys.exit(f"failed: {failure}")
