"""A threaded server for WebSocket and server-sent events, in which waiting holds no thread."""

from wsframe import ConnectionClosed

from .app import App
from .eventstream import EventStream
from .http.request import Request
from .reports.stats import Stats
from .server import Server
from .settings import Settings
from .topics.delivery import Subscription
from .topics.errors import EventsLost, RedisRefused, RedisUnavailable
from .topics.topic import Published, Topic, TopicStats
from .websocket import WebSocket

__all__ = [
    "App",
    "ConnectionClosed",
    "EventStream",
    "EventsLost",
    "Published",
    "RedisRefused",
    "RedisUnavailable",
    "Request",
    "Server",
    "Settings",
    "Stats",
    "Subscription",
    "Topic",
    "TopicStats",
    "WebSocket",
]
