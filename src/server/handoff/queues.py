"""A handler's wait for an item of a queue, which ends when its client disconnects.

The queue belongs to the application, and other threads may take items from it. A thread that waits
here takes an item only while its client is connected, so no item is lost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import inf
from queue import Empty, Queue, SimpleQueue
from time import monotonic
from typing import TypeVar

from ..timing import waitable

if sys.version_info >= (3, 13):
    from queue import ShutDown

Item = TypeVar("Item")


def next_item(
    queue: Queue[Item] | SimpleQueue[Item],
    has_disconnected: Callable[[], bool],
    timeout: float | None,
    interval: float,
) -> Item:
    """The handler's thread: wait for an item.

    Args:
        queue: the source of the item.
        has_disconnected: a function that returns True if the client has disconnected. For a queue
            with a condition, :func:`wake` must be called after a disconnect. For other queues the
            function is called after each interval.
        timeout: the longest time to wait, in seconds; None for no limit.
        interval: the time between two calls of ``has_disconnected``, in seconds.

    Raises:
        Empty: the time-out has passed, or the client has disconnected.
        ShutDown: the queue is shut down and empty (CPython 3.13 and later).
    """
    deadline = inf if timeout is None else monotonic() + max(0.0, timeout)
    if _has_condition(queue):
        assert isinstance(queue, Queue)
        return _next_of_condition(queue, has_disconnected, deadline)
    return _next_of_interval(queue, has_disconnected, deadline, interval)


def wake(queue: Queue[Item] | SimpleQueue[Item]) -> bool:
    """Any thread: wake the waiting threads, which check if their clients have disconnected.

    This function never waits for the lock of the queue, which the application may hold.

    Returns:
        False if the lock is held; then the caller tries again later.
    """
    if not _has_condition(queue):
        return True
    assert isinstance(queue, Queue)
    if not queue.mutex.acquire(blocking=False):
        return False
    try:
        queue.not_empty.notify_all()
    finally:
        queue.mutex.release()
    return True


def _has_condition(queue: object) -> bool:
    """Return True if a queue is a ``queue.Queue`` that does not override ``get``."""
    return isinstance(queue, Queue) and type(queue).get is Queue.get


def _next_of_condition(
    queue: Queue[Item], has_disconnected: Callable[[], bool], deadline: float
) -> Item:
    with queue.not_empty:
        while not (has_disconnected() or queue._qsize()):
            if sys.version_info >= (3, 13) and queue.is_shutdown:
                raise ShutDown
            remaining = None if deadline == inf else deadline - monotonic()
            if remaining is not None and remaining <= 0:
                raise Empty
            queue.not_empty.wait(None if remaining is None else waitable(remaining))
        if has_disconnected():
            if queue._qsize():
                queue.not_empty.notify()  # another thread must be notified, if only this thread was
            raise Empty
        item: Item = queue._get()
        queue.not_full.notify()
        return item


def _next_of_interval(
    queue: Queue[Item] | SimpleQueue[Item],
    has_disconnected: Callable[[], bool],
    deadline: float,
    interval: float,
) -> Item:
    while not has_disconnected():
        remaining = max(0.0, deadline - monotonic())
        try:
            item = queue.get(timeout=min(remaining, interval))
        except Empty:
            if remaining <= interval:
                raise
            continue
        if not has_disconnected():
            return item
        _put_back(queue, item)
    raise Empty


def _put_back(queue: Queue[Item] | SimpleQueue[Item], item: Item) -> None:
    """Return the item to the queue.

    ``put`` would block on a full queue, raise on one that is shut down, and count the item twice
    for ``Queue.join``.
    """
    if not isinstance(queue, Queue):
        queue.put(item)
        return
    with queue.mutex:
        queue._put(item)
        queue.not_empty.notify()
