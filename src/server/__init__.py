"""A threaded server for WebSocket and server-sent events, in which waiting holds no thread."""

from wsframe import ConnectionClosed

from .app import App
from .http.request import Request
from .reports.stats import Stats
from .server import Server
from .sessions.eventstream import EventStream
from .sessions.websocket import WebSocket
from .settings import Settings
from .topics.delivery import Subscription
from .topics.errors import EventsLost, RedisRefused, RedisUnavailable
from .topics.topic import Published, Topic, TopicStats

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
