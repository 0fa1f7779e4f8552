"""The stop of the ASGI server, which ASGI does not announce to running requests."""

from __future__ import annotations

import signal
from typing import Any


def server_stops() -> bool:
    """Any thread: return True if uvicorn, in the main thread of this process, stops.

    Before it closes anything else, it waits for running requests, and an event stream would run
    for ever. The handler of its stop signals is a method of its server.
    """
    handlers = (signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
    return any(_stops(getattr(handler, "__self__", None)) for handler in handlers)


def _stops(server: Any) -> bool:
    """Return True if this is a server that was stopped, or that listens no more."""
    if getattr(server, "should_exit", None) is None:
        return False
    listeners = getattr(server, "servers", ())
    return server.should_exit or not all(each.is_serving() for each in listeners)
