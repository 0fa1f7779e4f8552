"""A threaded server for WebSockets and server-sent events: a waiting connection uses no thread."""

from wsframe import ConnectionClosed

from .app import App
from .http.request import Request
from .reports.stats import Stats
from .server import Server
from .sessions.eventstream import EventStream
from .sessions.websocket import WebSocket
from .settings import Settings
from .sockets.snapshot import ConnectionInfo
from .tickets import Tickets
from .topics.errors import BrokerRefused, BrokerUnavailable, EventsLost
from .topics.receipts import Published
from .topics.subscription import Subscription
from .topics.topic import Topic, TopicStats

__all__ = [
    "App",
    "BrokerRefused",
    "BrokerUnavailable",
    "ConnectionClosed",
    "ConnectionInfo",
    "EventStream",
    "EventsLost",
    "Published",
    "Request",
    "Server",
    "Settings",
    "Stats",
    "Subscription",
    "Tickets",
    "Topic",
    "TopicStats",
    "WebSocket",
]
