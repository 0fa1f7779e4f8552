"""Event streams of topics in ASGI applications, such as those of FastAPI and Starlette."""

from ..server import Stats, Topic
from .response import EventStream
from .topics import Topics

__all__ = ["EventStream", "Stats", "Topic", "Topics"]
