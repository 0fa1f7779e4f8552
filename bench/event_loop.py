"""The event loop of a server process, as ``serving.py`` names it, and its TLS context."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Coroutine
from typing import Any

from .given import files


def context() -> ssl.SSLContext | None:
    """Return the context for TLS, or None without TLS."""
    cert, key = files()
    if cert is None:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(cert, key)
    return made


def on_aiofastnet() -> bool:
    """Return True if aiofastnet replaces the transports of the loop."""
    return sys.argv[2].endswith("aiofastnet")


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop of the kind that the process was started with."""
    base = asyncio.new_event_loop
    if sys.argv[2].startswith("uvloop"):
        import uvloop

        base = uvloop.new_event_loop
    if on_aiofastnet():
        import aiofastnet

        return aiofastnet.loop_factory(base)()
    return base()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a server on a new loop until the process is terminated."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)
