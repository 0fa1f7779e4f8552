"""A threaded server for WebSocket and server-sent events, in which waiting holds no thread."""

from .app import App
from .errors import ConnectionClosed
from .eventstream import EventStream
from .http import Request
from .server import Server
from .websocket import WebSocket

__all__ = ["App", "ConnectionClosed", "EventStream", "Request", "Server", "WebSocket"]
