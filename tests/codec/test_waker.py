"""Waker: wake-ups from any thread, before and after the close."""

from __future__ import annotations

import selectors
import threading
from collections.abc import Iterator

import pytest

from wsframe.waker import Waker


@pytest.fixture
def waker() -> Iterator[Waker]:
    waker = Waker()
    yield waker
    waker.close()


def is_readable(waker: Waker) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(waker, selectors.EVENT_READ)
        return bool(selector.select(0))


def test_a_wake_up_makes_the_waker_readable_until_it_is_drained(waker: Waker) -> None:
    assert not is_readable(waker)
    waker.wake()
    waker.wake()
    assert is_readable(waker)
    assert waker.drain()
    assert not is_readable(waker)


def test_draining_without_a_wake_up_returns_no_bytes(waker: Waker) -> None:
    assert waker.drain() == b""


def test_any_number_of_wake_ups_never_blocks(waker: Waker) -> None:
    for _ in range(100_000):
        waker.wake()
    while waker.drain():
        pass
    waker.wake()
    assert waker.drain()


def test_a_blocking_waker_waits_for_a_wake_up_of_another_thread() -> None:
    waker = Waker(blocking=True)
    drained: list[bytes] = []
    thread = threading.Thread(target=lambda: drained.append(waker.drain()))
    thread.start()
    waker.wake()
    thread.join(10)
    assert drained == [b"\0"]
    waker.close()


def test_waking_a_closed_waker_does_nothing(waker: Waker) -> None:
    waker.close()
    waker.wake()
    waker.close()
