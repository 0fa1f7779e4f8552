"""A small blocking client: WebSockets, used by any number of threads, and event streams.

It starts no threads: whoever calls a method does the work.
"""

from .eventsource import EventSource, events
from .opening import connect
from .websocket import WebSocket

__all__ = ["EventSource", "WebSocket", "connect", "events"]
