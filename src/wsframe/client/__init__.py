"""A small blocking client: WebSockets, for any number of threads, and event streams.

It starts no threads: the threads that call its methods do the work.
"""

from .eventsource import EventSource, events
from .opening import connect
from .websocket import WebSocket

__all__ = ["EventSource", "WebSocket", "connect", "events"]
