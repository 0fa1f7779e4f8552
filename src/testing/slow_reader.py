"""A client that reads at a slow but steady pace."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import Client


class SlowReader:
    """Reads from a client's socket in equal steps, as over a slow network.

    A small ``receive_buffer`` of the client makes the server wait for it early:

    Example::

        client = server.stream("/news", receive_buffer=16_384)
        SlowReader(client, 10_000, lambda: server.pass_time(1)).read(1_000_000)

    Args:
        client: the client.
        step: the bytes that it reads between two pauses.
        pause: a function that lets the time between two steps pass.
    """

    def __init__(self, client: Client, step: int, pause: Callable[[], object]) -> None:
        self._client = client
        self._step = step
        self._pause = pause

    def read(self, size: int) -> bytearray:
        """Read and return ``size`` bytes, with a pause after each step.

        Raises:
            EOFError: the connection ended before ``size`` bytes arrived.
            TimeoutError: the server sent nothing within the client's time limit.
        """
        received = bytearray()
        while len(received) < size:
            end = min(len(received) + self._step, size)
            while len(received) < end:
                data = self._client.receive(end - len(received))
                if not data:
                    raise EOFError(f"the connection has ended after {len(received)} bytes")
                received += data
            self._pause()
        return received
