"""A small blocking client: WebSockets, used by any number of threads, and event streams.

It starts no threads: whoever calls a method does the work.
"""

from .websocket import WebSocket, connect

__all__ = ["WebSocket", "connect"]
