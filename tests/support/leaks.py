"""A check that a test leaves no thread and no open file behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

FILES = "/proc/self/fd"
JOIN_TIMEOUT = 5.0  # seconds, for all threads together


def open_files() -> dict[str, str]:
    """Return the open file descriptors, and what each refers to; empty where /proc is missing."""
    if not os.path.isdir(FILES):
        return {}
    files = {}
    for number in os.listdir(FILES):
        try:
            files[number] = os.readlink(f"{FILES}/{number}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return files


@contextmanager
def leak_check() -> Iterator[None]:
    """Fail if a thread or an open file is left that was not there at the beginning.

    Threads that are about to end get five seconds.
    """
    threads, files = set(threading.enumerate()), open_files()
    yield
    deadline = time.monotonic() + JOIN_TIMEOUT
    for thread in set(threading.enumerate()) - threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not [thread for thread in set(threading.enumerate()) - threads if thread.is_alive()]
    assert not set(open_files().items()) - set(files.items())
