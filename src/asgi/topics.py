"""Topics: the topics of an ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from ..server.reports.stats import Stats
from ..server.service import FLUSH_TIMEOUT, Service
from .loop import AsyncioLoop


class Topics(Service):
    """The topics of an ASGI application; :class:`wsframe.asgi.EventStream` sends their events.

    Any thread publishes, and so does any coroutine: publishing does not wait for clients. Each
    process has its own topics, unless Redis shares them. Everything that runs beside the event
    loops, such as the connections to Redis, starts in each process with the first event stream. It
    ends with the process, or with :meth:`close`, which :meth:`lifespan` calls.

    The arguments are those of :class:`wsframe.server.App`.

    >>> topics = Topics()
    >>> app = FastAPI(lifespan=topics.lifespan)
    >>> published = topics.topic("news").publish("hello")
    """

    def close(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Any thread: end all event streams, send all events to Redis, and release everything.

        A later event stream starts it again. With Redis, a coroutine calls it in a thread, because
        it waits.

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

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Start and close the topics with an application: the argument ``lifespan`` of Starlette.

        Without it they start with the first event stream. With it, an application that cannot use
        its Redis does not start.

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
