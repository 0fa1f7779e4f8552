"""Apps and helpers for tests of handlers that block."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from queue import Queue
from typing import Any

from tests.support.clients import WebSocketClient
from tests.support.handlers import Checkpoint, MessageGenerator, generator_echo, websocket_app
from tests.support.inspection import loops_of
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import ConnectionClosed
from wsframe.server import App, Server, WebSocket
from wsframe.server.handoff.task import BUSY
from wsframe.server.sessions.generator import GeneratorSession
from wsframe.server.timing import Timing

MIB = 1 << 20


# The most bytes of a connection in the kernel's buffers; all others would be in our memory.
KERNEL = 16 * MIB


class Blocking:
    """A handler that waits at the message "block", and answers with the beginning of each message.

    Attributes:
        seen: the messages of each connection, its end, and the run of its ``finally``.
        sockets: the connections, in the order of their arrival.
    """

    def __init__(self) -> None:
        self.held: deque[Checkpoint] = deque()
        self.seen: Queue[Any] = Queue()
        self.sockets: Queue[WebSocket] = Queue()

    def __call__(self, ws: WebSocket) -> MessageGenerator:
        self.sockets.put(ws)
        try:
            while True:
                message = yield
                self.seen.put(message)
                if message == "block":
                    self.held.popleft().wait()
                ws.send(message[:8])
        except ConnectionClosed as end:
            self.seen.put(end.code)
            raise
        finally:
            self.seen.put("finally")

    def app(self, timing: Timing | None = None, **options: Any) -> App:
        """Return an app with this handler, an echo and a page.

        On a busy machine, too, the route is suspected after three hand-offs.
        """
        timing = replace(timing or Timing(), handoff_window=60)

        def handler(ws: WebSocket) -> MessageGenerator:
            return (yield from self(ws))

        app = websocket_app(generator_echo, timing=timing)
        app.websocket("/block", **options)(handler)
        app.page("/", b"page")
        return app

    def block(self, server: Server, client: WebSocketClient) -> Checkpoint:
        """Let a client's handler block, and lose the loop or wait in a thread."""
        held = Checkpoint()
        self.held.append(held)
        busy = len(sessions(server, BUSY))
        client.send_messages("block")
        held.wait_until_reached()
        wait_until(lambda: len(sessions(server, BUSY)) > busy, "it has a thread of its own")
        return held

    def next_seen(self, count: int) -> list[Any]:
        """Return the next items of ``seen``."""
        return [self.seen.get(timeout=TIMEOUT) for _ in range(count)]


def sessions(server: Server, state: Any = None) -> list[GeneratorSession]:
    """Return the sessions that have not ended, in this state."""
    found = [task for loop in loops_of(server) for task in tuple(loop.unfinished)]
    return [  # only generators
        task for task in found if isinstance(task, GeneratorSession) and state in (None, task.state)
    ]
