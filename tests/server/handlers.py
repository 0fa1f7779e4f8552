"""The same handler, both ways to write one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias

import pytest

from wsframe.server import App, WebSocket

Waits: TypeAlias = Generator[None, "str | bytes", None]


def plain_echo(ws: WebSocket) -> None:
    """Send every message back, from a thread."""
    for message in ws:
        ws.send(message)


def generator_echo(ws: WebSocket) -> Waits:
    """Send every message back, from the loop."""
    while True:
        message = yield
        ws.send(message)


BOTH_KINDS = pytest.mark.parametrize("echo", [plain_echo, generator_echo])


def websocket_app(handler: Callable[..., Any], path: str = "/echo", **options: Any) -> App:
    """An app with one WebSocket."""
    app = App()
    app.websocket(path, **options)(handler)
    return app
