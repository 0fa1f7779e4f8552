"""A client that reads at a slow but steady pace."""

from __future__ import annotations

from collections.abc import Callable

from .clients import Client


class SlowReader:
    """Reads from a client's socket in equal steps.

    Args:
        client: the client.
        step: the bytes that it reads between two pauses.
        pause: a function that lets the time between two steps pass, such as that of a manual clock.
    """

    def __init__(self, client: Client, step: int, pause: Callable[[], None]) -> None:
        self._client = client
        self._step = step
        self._pause = pause

    def read(self, size: int) -> bytearray:
        """Return this number of bytes; fail if the connection ends before."""
        received = bytearray()
        while len(received) < size:
            end = min(len(received) + self._step, size)
            while len(received) < end:
                data = self._client.receive(end - len(received))
                assert data, f"the connection ended after {len(received)} bytes"
                received += data
            self._pause()
        return received
