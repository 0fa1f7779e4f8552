"""Detection of the ASGI server's stop, which ASGI does not announce to running requests."""

from __future__ import annotations

import signal
from typing import Any


def server_stops() -> bool:
    """Any thread: return True if uvicorn runs in the main thread and is stopping.

    uvicorn waits for running requests before it closes anything, so an event stream would delay the
    stop without a limit. The server object is found through its signal handler, a method.
    """
    handlers = (signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
    return any(_stops(getattr(handler, "__self__", None)) for handler in handlers)


def _stops(server: Any) -> bool:
    """Return True if the object is a uvicorn server that is stopping or no longer listens."""
    if getattr(server, "should_exit", None) is None:
        return False
    listeners = getattr(server, "servers", ())
    return server.should_exit or not all(each.is_serving() for each in listeners)
