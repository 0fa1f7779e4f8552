"""Detection of gevent's and eventlet's patches of the standard library."""

from __future__ import annotations

import queue
import sys
from queue import SimpleQueue
from typing import Any

from ..reports.loggers import background, log

# The consequence of replacing each module, for the log. One module has another name in eventlet.
MEANINGS = {
    "select": "the loops use I/O functions in Python instead of the compiled ones",
    "threading": "threads of handlers are greenlets, so a handler blocks all clients unless it "
    "waits in the patched modules of Python",
}
NAMES_IN_EVENTLET = {"threading": "thread"}
ADVICE = "without the patch the server is faster, for example with gunicorn --worker-class gthread"


def check_patches() -> None:
    """Any thread: check that gevent or eventlet has not patched Python after wsframe was imported.

    If Python was patched before the import, a log line states the consequences for the server.

    Raises:
        RuntimeError: Python was patched after the import, so a thread that waits would block all
            threads.
    """
    if patched_late():
        raise RuntimeError(
            "gevent or eventlet has patched Python after wsframe was imported: call its "
            "monkey.patch_all() before, with gunicorn --preload in its configuration file"
        )
    library, replaced = _patched()
    if replaced:
        names, meanings = " and ".join(replaced), "; ".join(map(MEANINGS.__getitem__, replaced))
        log.warning("%s has patched %s: %s; %s", library, names, meanings, ADVICE)


def patched_late() -> str:
    """Any thread: return the library that has patched Python after wsframe was imported, or ""."""
    if queue.SimpleQueue is SimpleQueue:
        return ""
    background.after_fork()  # the thread of the log must be started again
    monkey: Any = sys.modules.get("gevent.monkey")
    return "gevent" if monkey and monkey.is_module_patched("queue") else "eventlet"


def _patched() -> tuple[str, list[str]]:
    """Return the library that has patched this process, and the modules that it has replaced."""
    monkey: Any = sys.modules.get("gevent.monkey")
    replaced = [name for name in MEANINGS if monkey and monkey.is_module_patched(name)]
    if replaced:
        return "gevent", replaced
    patcher: Any = sys.modules.get("eventlet.patcher")
    known = {name: NAMES_IN_EVENTLET.get(name, name) for name in MEANINGS}
    return "eventlet", [
        name for name in MEANINGS if patcher and patcher.is_monkey_patched(known[name])
    ]
