"""Tests that measure no coverage, because other tests reach the same lines in less time."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Coverage is measured in this process, and in its child processes, if this variable exists.
COVERAGE = "COVERAGE_PROCESS_CONFIG"


@contextmanager
def unmeasured() -> Iterator[None]:
    """Measure no coverage in this thread, in new threads and in new programs."""
    configuration = os.environ.pop(COVERAGE, None)
    if configuration is None:
        yield
        return
    trace, trace_of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    try:
        yield
    finally:
        threading.settrace(trace_of_threads)
        sys.settrace(trace)
        os.environ[COVERAGE] = configuration
