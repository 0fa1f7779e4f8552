"""How a handler's thread waits for an item of a queue, until its client leaves.

The queue belongs to the application, and others may take from it as well. A thread that waits here
takes an item only while its client is there, and an item is never lost.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from queue import Empty, Queue, SimpleQueue
from time import monotonic
from typing import TypeVar

from ..timing import waitable

Item = TypeVar("Item")


def next_item(
    queue: Queue[Item] | SimpleQueue[Item],
    has_left: Callable[[], bool],
    timeout: float | None,
    interval: float,
) -> Item:
    """The handler's own thread: wait for an item.

    Args:
        queue: where it comes from.
        has_left: whether the client has left. For a queue with a condition, :func:`wake` must be
            called when that changes; otherwise it is asked after every interval.
        timeout: for how many seconds to wait; None for as long as it takes.
        interval: in seconds.

    Raises:
        Empty: there was no item in time, or the client has left.
    """
    deadline = inf if timeout is None else monotonic() + max(0.0, timeout)
    if _has_condition(queue):
        assert isinstance(queue, Queue)
        return _next_of_condition(queue, has_left, deadline)
    return _next_of_interval(queue, has_left, deadline, interval)


def wake(queue: Queue[Item] | SimpleQueue[Item]) -> bool:
    """Any thread: have the threads that wait here look whether their clients have left.

    This never waits for the queue's lock, which the application may hold.

    Returns:
        False if it has to be tried again later.
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
    """Whether this is a Queue that takes its items as Queue does."""
    return isinstance(queue, Queue) and type(queue).get is Queue.get


def _next_of_condition(queue: Queue[Item], has_left: Callable[[], bool], deadline: float) -> Item:
    def is_shut_down() -> bool:
        return getattr(queue, "is_shutdown", False)  # CPython 3.13 and later

    with queue.not_empty:
        while not (has_left() or queue._qsize() or is_shut_down()):
            left = None if deadline == inf else deadline - monotonic()
            if left is not None and left <= 0:
                raise Empty
            queue.not_empty.wait(left if left is None else waitable(left))
        if has_left():
            if queue._qsize():
                queue.not_empty.notify()  # it may have been announced to this thread alone
            raise Empty
        if queue._qsize():
            item: Item = queue._get()
            queue.not_full.notify()
            return item
    return queue.get_nowait()  # raises what it raises for a queue that is shut down


def _next_of_interval(
    queue: Queue[Item] | SimpleQueue[Item],
    has_left: Callable[[], bool],
    deadline: float,
    interval: float,
) -> Item:
    while not has_left():
        left = max(0.0, deadline - monotonic())
        try:
            item = queue.get(timeout=min(left, interval))
        except Empty:
            if left <= interval:
                raise
            continue
        if not has_left():
            return item
        _put_back(queue, item)
    raise Empty


def _put_back(queue: Queue[Item] | SimpleQueue[Item], item: Item) -> None:
    """Let another take the item.

    A queue that is full or shut down would make ``put`` wait or raise, and ``Queue.join`` would
    wait for the item twice.
    """
    if not isinstance(queue, Queue):
        queue.put(item)
        return
    with queue.mutex:
        queue._put(item)
        queue.not_empty.notify()
