"""EventStream: an ASGI response that subscribes its client to topics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import partial
from time import monotonic
from typing import Any, TypeAlias
from urllib.parse import parse_qs

from wsframe.headers import Headers

from ..server.headers import ON_STREAMS, added_headers
from ..server.heartbeats import encode_heartbeat
from ..server.sessions.eventstream_session import STREAM_HEADERS
from ..server.sessions.resume import read_last_event_id
from ..server.sockets.identities import Identity, check_identity
from ..server.topics.encodings import encode_end
from ..server.topics.ids import END
from ..server.topics.registry import Topics as Registry
from ..server.topics.topic import Topic
from ..server.topics.topic_log import TopicLog
from .base import Response
from .sends import Message, Send
from .stream import Options, Stream

NOT_STORED = ((b"cache-control", b"no-store"),)

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]


class EventStream(Response):
    """An ASGI response: an event stream of one or more topics.

    An endpoint of Starlette or FastAPI returns this response after its own checks. The response is
    also an ASGI application. The client receives the events that are published from then on. A
    client that reconnects first receives the events that it has missed, or a "gap" event if some of
    them are no longer in the log. The policy of the topic applies to a client that is too slow.
    When all topics are closed, the stream ends for good: the client reconnects once, and receives
    204.

    A client uses no queue, and no task except that of its request. If uvicorn stops, the streams
    end. Other ASGI servers cancel the requests when they stop.

    >>> topics = Topics()
    >>> app = FastAPI(lifespan=topics.lifespan)
    >>> @app.get("/news")
    ... async def news():
    ...     return EventStream(topics.topic("news"), after="")

    Args:
        topic: the topic, from :class:`wsframe.asgi.Topics` or :class:`wsframe.server.App`.
        *topics: further topics of the same application.
        after: the position for a new client: None to start with the next event, "" with the oldest
            event in the log, or the id of an event.
        member: the name of the client for :meth:`wsframe.server.Topic.members`.
        identity: the text, number or UUID of the user, by which :meth:`Topics.close_identity` finds
            the stream; None for no identity. If the identity is closed after the response was
            created, and before the stream is open, the request is refused with 403.
        retry: the delay before a client reconnects, in seconds; 0 for the default of the client. It
            is random for each client, from a half to one and a half of this value.
        heartbeat: the longest time without an event, in seconds, after which at the latest a
            comment is sent; 0 for no comments.
        heartbeat_event: the type of an event that is sent in place of that comment, so that a page
            can detect a dead connection; "" for a comment.
        send_timeout: the time without accepted data, in seconds, after which the request of a
            client is ended; 0 for no limit.
        headers: further headers, as a mapping or (name, value) pairs.
        background: a task of Starlette that runs after the end.

    Attributes:
        topics: all topics.
        status_code: 200.
        background: the task that runs after the end; None without one.

    Raises:
        TypeError: an argument is not a topic, or the identity has another type.
        ValueError: a time is negative, the topics belong to different applications, or a header of
            the argument is malformed or is one that the stream sets itself. Or ``heartbeat_event``
            is malformed, or is set without ``heartbeat``. Or the identity is empty, too long, or
            contains a lone surrogate.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        topic: Topic,
        *topics: Topic,
        after: str | None = None,
        member: str | None = None,
        identity: Identity | None = None,
        retry: float = 2.0,
        heartbeat: float = 15.0,
        heartbeat_event: str = "",
        send_timeout: float = 30.0,
        headers: Headers | None = None,
        background: Any = None,
    ) -> None:
        times = {"retry": retry, "heartbeat": heartbeat, "send_timeout": send_timeout}
        for name, value in times.items():
            if not value >= 0:
                raise ValueError(f"{name} must not be negative: {value!r}")
        beat = encode_heartbeat(heartbeat_event)
        if heartbeat_event and not heartbeat:
            raise ValueError("heartbeat_event requires heartbeat")
        self.topics: tuple[Topic, ...] = (topic, *topics)
        self._registry = registry_of(self.topics)
        user = None if identity is None else check_identity(identity)
        self._options = Options(after, member, user, retry, heartbeat, beat, send_timeout)
        self._created = monotonic()
        self.status_code = 200
        self.background = background
        self.init_headers({name.lower(): value for name, value in STREAM_HEADERS})
        self.raw_headers += [
            (name.lower().encode("latin-1"), text.encode("latin-1"))
            for name, text in added_headers(headers or (), ON_STREAMS)
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request with the stream.

        Raises:
            RuntimeError: the scope is not that of an HTTP request.
        """
        if scope["type"] != "http":
            raise RuntimeError(f"an event stream answers HTTP requests, not {scope['type']!r}")
        last_id = last_event_id(scope)
        if last_id == END:
            await send(_start(204, NOT_STORED))
            await send(_end())
        elif scope["method"] == "HEAD":
            await send(_start(200, self.raw_headers))
            await send(_end())
        else:
            await self._stream(scope, receive, send, last_id)
        if self.background is not None:
            await self.background()

    async def _stream(self, scope: Scope, receive: Receive, send: Send, last_id: str) -> None:
        if not self._registry.begun:
            await asyncio.to_thread(self._registry.begin_once)  # the first stream connects to Redis
        if self._identity_closed():
            await send(_start(403, NOT_STORED))
            await send(_end())
            return
        await send(_start(200, self.raw_headers))
        try:
            async with asyncio.timeout(None) as wait:
                loop = asyncio.get_running_loop()
                ended = partial(_end_wait, loop, wait)
                stream = Stream(self._registry, self._options, scope, send, ended)
                try:
                    stream.enter()
                    if self._identity_closed():  # since the head was sent
                        stream.loop.call_soon(partial(stream.finish, encode_end()))
                    else:
                        stream.open(self.topics, last_id)
                    while (await receive())["type"] != "http.disconnect":
                        pass
                finally:
                    stream.close()
        except TimeoutError:
            if not wait.expired():
                raise
        if stream.error is not None:
            raise stream.error

    def _identity_closed(self) -> bool:
        """Return True if the identity was closed after the response was created."""
        identity = self._options.identity
        return identity is not None and self._registry.closings.closed_since(
            identity, self._created
        )


def _end_wait(loop: asyncio.AbstractEventLoop, wait: asyncio.Timeout) -> None:
    """Wake the request's task, because the stream has ended."""
    wait.reschedule(loop.time())


def _start(status: int, headers: Iterable[tuple[bytes, bytes]]) -> Message:
    """Return the first message of an answer. A middleware may change its list of headers."""
    return {"type": "http.response.start", "status": status, "headers": [*headers]}


def _end() -> Message:
    return {"type": "http.response.body", "body": b"", "more_body": False}


def registry_of(topics: tuple[Topic, ...]) -> Registry:
    """Return the registry to which all these topics belong.

    Raises:
        TypeError: an argument is not a topic.
        ValueError: the topics belong to several registries.
    """
    registries = set()
    for topic in topics:
        if not isinstance(topic, TopicLog):
            raise TypeError(f"expected a Topic, got {topic!r}")
        assert isinstance(topic.registry, Registry)
        registries.add(topic.registry)
    if len(registries) > 1:
        raise ValueError(
            "the topics of an event stream must belong to the same App or Topics object"
        )
    return registries.pop()


def last_event_id(scope: Scope) -> str:
    """Return the id of the last event that the client of a request has received; "" if none."""
    headers = (value for name, value in scope["headers"] if name.lower() == b"last-event-id")
    header = next(headers, b"").decode("latin-1")
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    return read_last_event_id(header, query)
