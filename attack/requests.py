"""Attacks with requests: long paths, large heads, and protocol errors."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import ExitStack, closing
from time import monotonic

from . import peers
from .report import KIB, MIB, Report
from .target import Target

SEPARATORS = ("/", ".", "-", "%2F", "%2e", ";", "=", "a.", "a-", "/.", "./", "//", "%", "{", "a")
PREFIXES = ("", "/ws/", "/sse/", "/sse/x-y/", "/page", "/metrics", "/rooms/", "/news?", "/page?")
# Seconds that one request may occupy the loop, including the client's own share.
QUICK = 0.02


def long_paths(repeat: int) -> Callable[[Report], None]:
    """Request paths of 8 KB that repeat a separator, on every kind of route."""

    def attack(report: Report) -> None:
        with Target() as target:
            worst, which = 0.0, ""
            for prefix in PREFIXES:
                for separator in SEPARATORS:
                    path = (prefix or "/") + separator * ((8000 - len(prefix)) // len(separator))
                    seconds = min(_ask(target.port, path) for _ in range(repeat))
                    worst, which = max((worst, which), (seconds, f"{prefix}{separator}..."))
            report.time(f"the slowest answer ({which})", worst, QUICK)

    return attack


def fat_heads(repeat: int) -> Callable[[Report], None]:
    """Send heads of 16 KB: lists of extensions, forwarded addresses, parameters, cookies."""
    fields = {
        "X-Forwarded-For": "1.2.3.4, ",
        "Forwarded": "for=1.2.3.4;by=x, ",
        "Sec-WebSocket-Extensions": "permessage-deflate; a, ",
        "Sec-WebSocket-Protocol": "a,",
        "Accept-Encoding": "gzip;q=0,",
        "Last-Event-ID": "?a=1&",
        "Cookie": "a=b;",
        "Origin": "http://a.",
    }

    def attack(report: Report) -> None:
        with Target("trusted_proxies=['127.0.0.1']") as target:
            for name, item in fields.items():
                head = f"{name}: {item * (7000 // len(item))}x"
                seconds = min(_ask(target.port, "/echo", head, upgrade=True) for _ in range(repeat))
                report.time(name, seconds, QUICK)

    return attack


def _ask(port: int, path: str, *headers: str, upgrade: bool = False) -> float:
    with closing(peers.connect(port)) as sock:
        begin = monotonic()
        sock.sendall(peers.request(path, *headers, upgrade=upgrade))
        peers.read_head(sock)
        return monotonic() - begin


def protocol_errors(count: int) -> Callable[[Report], None]:
    """Cause ``count`` protocol errors while a log handler publishes each record to a topic."""

    def attack(report: Report) -> None:
        with Target("tail=1") as target, ExitStack() as stack:
            follower = peers.stream(target.port, "/news?log", peers.HONEST)
            stack.callback(follower.close)
            before = target.memory
            for number in range(count):
                _break_a_rule(target.port, number)
                if number % 100 == 0:
                    peers.is_open(follower)  # discards the received data
            report.time("an echo", peers.time_of_echo(target.port, "/echo"), 0.1)
            report.check(
                "the client that follows the log is still connected", peers.is_open(follower)
            )
            report.memory("memory", target.memory - before, 64 * MIB)

    return attack


def _break_a_rule(port: int, number: int) -> None:
    with closing(peers.websocket(port, "/echo")) as sock:
        sock.sendall(b"\xff" * (number % 3 + 2))
        sock.settimeout(peers.TIMEOUT)
        while sock.recv(1 << 16):
            pass


def unread_log(count: int) -> Callable[[Report], None]:
    """Make handlers fail while the log is a pipe without a reader."""

    def attack(report: Report) -> None:
        with Target(stderr=subprocess.PIPE, runs=True) as target:
            started = target.wait_until(lambda: _answers(target.port))
            report.check("the server accepts requests", started)
            before = target.memory
            worst = 0.0
            for number in range(count):
                with closing(peers.websocket(target.port, "/fails")) as sock:
                    sock.sendall(peers.text("x" * 10_000))
                    sock.recv(1000)
                if number % 10 == 0:
                    worst = max(worst, peers.time_of_echo(target.port, "/echo"))
            report.time("the slowest echo of another client", worst, 0.1)
            report.memory("memory", target.memory - before, 32 * MIB)
            report.memory("memory for each failure", (target.memory - before) / count, 64 * KIB)

    return attack


def _answers(port: int) -> bool:
    try:
        peers.get(port, "/page")
    except OSError:
        return False
    return True
