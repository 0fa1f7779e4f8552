"""Topics: the topics of an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from ..server.reports.stats import Stats
from ..server.service import FLUSH_TIMEOUT, Service
from ..server.sockets.snapshot import ConnectionInfo, paced
from .loop import AsyncioLoop


class Topics(Service):
    """The topics of an ASGI application; :class:`wsframe.asgi.EventStream` sends their events.

    Any thread and any coroutine may publish, because publishing does not wait for clients. Each
    process has its own topics, unless Redis shares them. The threads of topics, such as the
    connections to Redis, start in each process with the first event stream. They end with the
    process, or in :meth:`close`, which :meth:`lifespan` calls.

    The arguments are those of :class:`wsframe.server.App`.

    >>> topics = Topics()
    >>> app = FastAPI(lifespan=topics.lifespan)
    >>> published = topics.topic("news").publish("hello")
    """

    def close(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Any thread: end all event streams, send all events to Redis, and release all resources.

        A later event stream starts the threads again. With Redis this method waits, so a coroutine
        calls it with ``asyncio.to_thread``.

        Raises:
            EventsLost: Redis has rejected events, or has not acknowledged them in time.
        """
        for loop in self._asyncio_loops():
            loop.call_soon(loop.end_streams)
        super().close(timeout)

    def stats(self) -> Stats:
        """Any thread: return the statistics of the topics and event streams in this process."""
        loops = self._asyncio_loops()
        return replace(
            super().stats(),
            event_streams=sum(len(loop.streams) for loop in loops),
            subscriptions=sum(loop.totals.subscriptions for loop in loops),
            loops=len(loops),
        )

    def connections(self) -> list[ConnectionInfo]:
        """Any thread: return the open event streams of this process.

        The call takes some microseconds for each, and pauses often, so that it delays no event
        loop. A coroutine with thousands of streams calls it with ``asyncio.to_thread``.
        """
        now = self._timing.clock()
        streams = [stream for loop in self._asyncio_loops() for stream in loop.streams.copy()]
        return [stream.info(now) for stream in paced(streams) if not stream.closed]

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Start and close the topics with an application: the ``lifespan`` argument of Starlette.

        Without this lifespan, the topics start with the first event stream. With it, an application
        fails to start if Redis lacks a required feature.

        Raises:
            BrokerRefused: Redis does not support what topics require.
        """
        await asyncio.to_thread(self._topics.begin_once)
        try:
            yield
        finally:
            await asyncio.to_thread(self.close)

    def _asyncio_loops(self) -> list[AsyncioLoop]:
        return [loop for loop in self._topics.loops if isinstance(loop, AsyncioLoop)]
