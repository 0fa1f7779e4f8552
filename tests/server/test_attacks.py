"""Short forms of the attacks of ``make attack``, with the limits that must hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from attack import publishing, requests, threads, topics
from attack.report import Report

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

SECONDS = 1.0
RATES = [0, 1000, 30_000, 90_000]

Attack = Callable[[Report], None]

ATTACKS: dict[str, Attack] = {
    **{
        f"{count} silent clients: {kind}": threads.silent_clients(kind, count)
        for kind in threads.KINDS
        for count in (64, 2000)
    },
    "abandoned requests": threads.abandoned_requests(200),
    "abandoned streams": threads.abandoned_streams(200),
    **{
        f"messages of {size} bytes, read at {rate} bytes a second": topics.slow_reader(
            rate, size, SECONDS
        )
        for size in (0, 1, 1 << 16)
        for rate in RATES
    },
    "streams that read nothing": topics.unread_streams(300, 0.5),
    "many names": topics.many_names(10_001),
    "many subscriptions": topics.many_subscriptions(490),
    "newlines": topics.newlines(3),
    "long paths": requests.long_paths(1),
    "fat heads": requests.fat_heads(1),
    "a log pipe without a reader": requests.unread_log(200),
    "protocol errors": requests.protocol_errors(500),
    "publishing from destructors": publishing.publishing_from("del", 300, 600),
    "publishing from a signal handler": publishing.publishing_from("signal", 200, 200),
    "publishing from forked children": publishing.publishing_from("fork", 100, 100),
}


@pytest.mark.usefixtures("high_file_limit")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_other_clients_are_served_within_all_limits_during_an_attack(
    attack: Attack,
) -> None:
    report = Report(timed=False)
    attack(report)
    assert not report.faults, "\n".join(report.lines)
