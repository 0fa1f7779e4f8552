"""Event streams of topics in ASGI applications, such as those of FastAPI and Starlette."""

from ..server import ConnectionInfo, Stats, Topic
from .response import EventStream
from .topics import Topics

__all__ = ["ConnectionInfo", "EventStream", "Stats", "Topic", "Topics"]
