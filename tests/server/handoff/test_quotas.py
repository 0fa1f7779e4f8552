"""Quotas: their limits, and the text of a shortage in the log."""

from __future__ import annotations

import pytest

from wsframe.server.handoff.quotas import Holder, Quota, Shortage, Usage

QUOTA = Quota.of("max_threads", 8, 0.5)


def test_a_share_is_a_part_of_the_limit_and_at_least_one_thread() -> None:
    assert (QUOTA.limit, QUOTA.share, QUOTA.part) == (8, 4, 2)
    assert Quota.of("max_threads", 1, 0.1) == Quota("max_threads", 1, 1, 1)


@pytest.mark.parametrize(
    ("shortage", "text"),
    [
        (Shortage.ALL, "all threads are busy (max_threads=8)"),
        (
            Shortage.ROUTE,
            "the route uses its share of the threads (4 of max_threads=8; max_thread_share)",
        ),
        (
            Shortage.NETWORK,
            "the client's network uses its share of the threads "
            "(4 of max_threads=8; max_thread_share)",
        ),
        (
            Shortage.PART,
            "the client's network uses its share of the route's threads "
            "(2 of max_threads=8; max_thread_share)",
        ),
        (Shortage.SYSTEM, "the system cannot start another thread"),
    ],
)
def test_the_log_names_the_limit_and_the_settings(shortage: Shortage, text: str) -> None:
    assert QUOTA.explain(shortage) == text


def use(usage: Usage, *holders: tuple[str, str | None]) -> None:
    for route, network in holders:
        usage.add(Holder(route, network))


@pytest.mark.parametrize(
    ("used", "holder", "shortage"),
    [
        ([], ("a", "1"), None),
        ([("a", "1")] * 2, ("a", "1"), Shortage.PART),
        ([("a", "1")] * 2, ("a", "2"), None),
        ([("a", "1")] * 2, ("b", "1"), None),
        ([("a", "1"), ("a", "2")] * 2, ("a", "3"), Shortage.ROUTE),
        ([("a", "1"), ("b", "1")] * 2, ("c", "1"), Shortage.NETWORK),
        ([("a", None)] * 3, ("a", None), None),
        ([("a", None)] * 4, ("a", None), Shortage.ROUTE),
        ([("a", None), ("b", None)] * 4, ("c", None), Shortage.ALL),
    ],
)
def test_a_holder_has_the_first_limit_that_it_reaches(
    used: list[tuple[str, str | None]], holder: tuple[str, str | None], shortage: Shortage | None
) -> None:
    usage = Usage()
    use(usage, *used)
    assert usage.shortage(QUOTA, Holder(*holder)) is shortage


def test_a_thread_that_ends_its_work_is_free_again() -> None:
    usage, holder = Usage(), Holder("a", "1")
    usage.add(holder)
    usage.add(holder)
    usage.remove(holder)
    assert usage.shortage(QUOTA, holder) is None
    assert usage.busy == 1
