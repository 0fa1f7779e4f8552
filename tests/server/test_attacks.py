"""Short forms of the attacks of ``make attack``, with the limits that must hold."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from attack import publishing, requests, threads, topics
from attack.report import Report
from tests.support.tools import missing_tool

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

SECONDS = 0.3
# Sizes of messages, in bytes, and rates of the reader, in bytes a second.
SLOW = [(0, 0), (0, 30_000), (1, 1000), (1, 90_000), (1 << 16, 0), (1 << 16, 30_000)]

Attack = Callable[[Report], None]
UNREAD = "streams that read nothing"

ATTACKS: dict[str, Attack] = {
    **{
        f"{count} silent clients: {kind}": threads.silent_clients(kind, count, *settings)
        for kind, *settings in (
            ("plain handler",),
            ("event generator",),
            # The measurements must end before the requests that wait are refused.
            ("authorize", "thread_timeout=60"),
            ("blocking turn",),
        )
        for count in (64, 400)
    },
    "abandoned requests": threads.abandoned_requests(200),
    "abandoned streams": threads.abandoned_streams(200),
    **{
        f"messages of {size} bytes, read at {rate} bytes a second": topics.slow_reader(
            rate, size, SECONDS
        )
        for size, rate in SLOW
    },
    UNREAD: topics.unread_streams(100, 0.5),
    "many names": topics.many_names(10_001),
    "many subscriptions": topics.many_subscriptions(490),
    "newlines": topics.newlines(3),
    "long paths": requests.long_paths(1),
    "fat heads": requests.fat_heads(1),
    "a log pipe without a reader": requests.unread_log(100),
    "protocol errors": requests.protocol_errors(200),
    "publishing from destructors": publishing.publishing_from("del", 300, 600),
    "publishing from a signal handler": publishing.publishing_from("signal", 200, 200),
    "publishing from forked children": publishing.publishing_from("fork", 40, 40),
}


@pytest.mark.usefixtures("high_file_limit")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_other_clients_are_served_within_all_limits_during_an_attack(
    attack: Attack,
) -> None:
    if attack is ATTACKS[UNREAD] and shutil.which("ss") is None:
        missing_tool("ss of iproute2")
    report = Report(timed=False)
    attack(report)
    assert not report.faults, "\n".join(report.lines)
