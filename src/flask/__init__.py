"""WebSockets and event streams in Flask applications."""

from ..wsgi import ConnectionClosed, EventStream, Topic, WebSocket
from .live import Live
from .sock import Sock, SockWebSocket

__all__ = ["ConnectionClosed", "EventStream", "Live", "Sock", "SockWebSocket", "Topic", "WebSocket"]
