"""Attacks on the memory of topics and sockets: slow readers, senders that flood, many names."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from time import monotonic, sleep

from . import peers
from .report import KIB, MIB, Report
from .target import Target

# The memory of a topic: three times its max_bytes (1 MiB by default) and 8 MiB.
TOPIC_BOUND = 3 * MIB + 8 * MIB
# The kernel memory for one client that reads nothing.
SOCKET_BOUND = 256 * KIB
SKMEM = re.compile(r"skmem:\(r(\d+),rb\d+,t(\d+),tb\d+,f(\d+),w(\d+),o(\d+),bl(\d+)")
# Near the limit for one event, whose largest encoding may have max_bytes and 2 MiB.
NEWLINES = 300_000
# Bytes that an attacker sends in one call.
BURST = 64 * KIB


def slow_reader(rate: int, size: int, seconds: float) -> Callable[[Report], None]:
    """Flood a topic that another client reads at ``rate`` bytes a second."""

    def attack(report: Report) -> None:
        with Target() as target, ExitStack() as stack:
            path = "/rooms/one"
            frame = peers.binary(bytes(size))
            burst = frame * max(1, BURST // len(frame))
            with closing(peers.websocket(target.port, path)) as warm:  # the cost of any client
                warm.sendall(burst)
                sleep(0.2)
            before = target.memory
            reader = stack.enter_context(
                closing(peers.websocket(target.port, path, peers.HONEST, 16 * KIB))
            )
            sender = stack.enter_context(closing(peers.websocket(target.port, path)))
            ended = threading.Event()
            threads = [
                threading.Thread(target=_read_slowly, args=(reader, rate, ended)),
                threading.Thread(target=_discard, args=(sender, ended)),
                threading.Thread(target=_flood, args=(sender, burst, ended)),
            ]
            target.forget_peak()
            for thread in threads:
                thread.start()
            deadline, worst = monotonic() + seconds, 0.0
            while monotonic() < deadline:
                worst = max(worst, peers.time_of_echo(target.port, "/echo"))
                sleep(0.1)
            peak = target.peak
            ended.set()
            for sock in (reader, sender):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            report.memory("memory of the topic", peak - before, TOPIC_BOUND)
            report.time("the slowest echo of another client", worst)
            report.time("an echo afterwards", peers.time_of_echo(target.port, "/echo"), 0.1)

    return attack


def _read_slowly(sock: socket.socket, rate: int, ended: threading.Event) -> None:
    step = max(1, rate // 20)
    with suppress(OSError):
        while not ended.wait(0.05):
            if rate and not sock.recv(step):
                return


def _discard(sock: socket.socket, ended: threading.Event) -> None:
    with suppress(OSError):
        while not ended.is_set() and sock.recv(1 << 18):
            pass


def _flood(sock: socket.socket, burst: bytes, ended: threading.Event) -> None:
    with suppress(OSError):
        while not ended.is_set():
            sock.sendall(burst)


def unread_streams(count: int, timeout: float) -> Callable[[Report], None]:
    """Open ``count`` event streams whose clients read nothing."""

    def attack(report: Report) -> None:
        with Target(f"send_timeout={timeout}") as target:
            before = target.memory
            socks = [peers.stream(target.port, "/endless") for _ in range(count)]
            begin = monotonic()
            sleep(min(1.0, timeout / 2))
            held = _kernel_memory(target.port)
            report.count("streams", count)
            report.memory("kernel memory of the largest", max(held, default=0), SOCKET_BOUND)
            report.memory("kernel memory of all", sum(held))
            report.memory("memory for each", (target.memory - before) / count)
            disconnected = target.wait_until(lambda: target.files < count, 3 * timeout + 30)
            report.check("clients that read nothing are disconnected", disconnected)
            report.time("time until then", monotonic() - begin, 2 * timeout + 2)
            for sock in socks:
                sock.close()

    return attack


def _kernel_memory(port: int) -> list[int]:
    """Return the kernel memory of each connection of the server (``ss`` of iproute2)."""
    command = ["ss", "-tmnH", "state", "established", f"( sport = :{port} )"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [sum(map(int, match.groups())) for match in SKMEM.finditer(text)]


def many_names(count: int) -> Callable[[Report], None]:
    """Have one client subscribe to ``count`` topics in turn; other topics keep their history."""

    def attack(report: Report) -> None:
        with Target() as target:
            with closing(peers.websocket(target.port, "/rooms/kept", peers.HONEST)) as sock:
                sock.sendall(peers.text("remember this"))
                sock.recv(100)
            before = target.memory
            with closing(peers.websocket(target.port, "/switch")) as sock:
                for number in range(0, count, 100):
                    sock.sendall(b"".join(peers.text(f"{n}") for n in range(number, number + 100)))
                sock.sendall(peers.text("x" * 100_000))
            report.time("an echo meanwhile", peers.time_of_echo(target.port, "/echo"), 0.1)
            report.memory("memory of the names", target.memory - before, 32 * MIB)

    return attack


def many_subscriptions(count: int) -> Callable[[Report], None]:
    """Subscribe to ``count`` topics with one request."""

    def attack(report: Report) -> None:
        with Target() as target:
            query = "&".join(f"t{number}" for number in range(count))[:8000]
            begin, cpu = monotonic(), target.cpu
            with closing(peers.connect(target.port)) as sock:
                sock.sendall(peers.request(f"/news?{query}"))
                worst = max(peers.time_of_echo(target.port, "/echo") for _ in range(100))
                received = _read_until_silent(sock)
            report.check("the stream begins", received.startswith(b"HTTP/1.1 200 "))
            report.memory("response", len(received), 64 * KIB)
            report.time("processor time", target.cpu - cpu, 0.5)
            report.time("the slowest echo of another client", worst, 0.1)
            report.time("total time", monotonic() - begin)

    return attack


def _read_until_silent(sock: socket.socket, size: int = 1) -> bytes:
    """Read this number of bytes, and then until no data has arrived for half a second."""
    received = bytearray()
    with suppress(TimeoutError):
        while data := sock.recv(1 << 16):
            received += data
            if len(received) >= size:
                sock.settimeout(0.5)
    return bytes(received)


def newlines(streams: int) -> Callable[[Report], None]:
    """Publish a text of newlines, each seven bytes in an event stream; and one over the limit."""

    def attack(report: Report) -> None:
        with Target() as target, ExitStack() as stack:
            socks = [peers.stream(target.port, "/news?lines") for _ in range(streams)]
            for sock in socks:
                stack.enter_context(closing(sock))
            before = target.memory
            target.forget_peak()
            with closing(peers.websocket(target.port, "/rooms/lines")) as sock:
                sock.sendall(peers.text("\n" * NEWLINES))
                worst = max(peers.time_of_echo(target.port, "/echo") for _ in range(100))
                received = [_read_until_silent(one, 7 * NEWLINES) for one in socks]
            report.time("the slowest echo of another client", worst, 0.1)
            report.check("every stream has received it", min(map(len, received)) >= 7 * NEWLINES)
            with closing(peers.websocket(target.port, "/rooms/lines")) as sock:
                sock.sendall(peers.text("\n" * (MIB - 16)))  # over the limit: refused
                report.time("an echo", peers.time_of_echo(target.port, "/echo"), 0.1)
            report.memory("memory", target.peak - before, TOPIC_BOUND)

    return attack
