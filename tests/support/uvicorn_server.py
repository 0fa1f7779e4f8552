"""A uvicorn server in a thread of the test process."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
from collections.abc import Callable, Coroutine, MutableMapping
from typing import Any, TypeAlias, TypeVar

from uvicorn.config import Config
from uvicorn.server import Server

from .log import ServerLog
from .serving import STOP_TIMEOUT
from .waiting import TIMEOUT

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Coroutine[Any, Any, Message]]
Send: TypeAlias = Callable[[Message], Coroutine[Any, Any, None]]
Result = TypeVar("Result")

# The line that the program prints when it has started.
STARTED = re.compile(r"Uvicorn running on (?P<url>http://127\.0\.0\.1:(?P<port>\d+)) ")


class UvicornServer:
    """A server that runs in its own thread until the context ends.

    Args:
        app: the application.
        **settings: the settings of uvicorn.

    Attributes:
        port: its port on 127.0.0.1.
        loop: its event loop.
        log: the records of its log, from warnings on.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self, app: Any, **settings: Any) -> None:
        self.log = ServerLog()
        defaults = {"lifespan": "off", "loop": "asyncio", "log_level": "warning"}
        self._server = Server(Config(app, log_config=None, **{**defaults, **settings}))
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        self._logger = logging.getLogger("uvicorn.error")
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uvicorn", daemon=True)

    @property
    def connections(self) -> list[Any]:
        """The open connections."""
        return list(self._server.server_state.connections)

    @property
    def tasks(self) -> int:
        """The number of running calls of the application."""
        return len(self._server.server_state.tasks)

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function in the thread of the server, and return its result."""

        async def run() -> Result:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(TIMEOUT)

    def begin_stop(self) -> None:
        """Make the server stop soon."""
        self._server.should_exit = True

    def stop(self) -> None:
        """Stop the server, and wait for its end."""
        self.begin_stop()
        self._thread.join(STOP_TIMEOUT)
        assert not self._thread.is_alive(), "the server has not stopped"

    def __enter__(self) -> UvicornServer:
        self._logger.addHandler(self.log)
        self._thread.start()
        assert self._started.wait(TIMEOUT), "the server has not started"
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._logger.removeHandler(self.log)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._server.config.get_loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        # Called once from the main loop of the server, so that it is certainly started.
        self.loop.call_soon(self._note_start)
        await self._server.serve([self._socket])

    def _note_start(self) -> None:
        if self._server.started:
            self._started.set()
        else:
            self.loop.call_later(0.002, self._note_start)
