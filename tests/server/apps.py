"""Apps that answer with what they were given."""

from __future__ import annotations

from tests.support.clients import Client, Response
from wsframe.server import App, Server, WebSocket


def ask(server: Server, request: bytes, host: str = "127.0.0.1") -> Response:
    client = Client(server.port, host=host)
    try:
        client.send(request)
        return client.answer()
    finally:
        client.close()  # also after a failure


def parameters_app(*paths: str) -> App:
    """Return an app whose handlers send their path and its parameters."""
    app = App()
    for path in paths:

        def describe(ws: WebSocket, path: str = path, **parameters: str) -> None:
            ws.send(repr((path, parameters)))

        app.websocket(path)(describe)
    return app


def pages() -> App:
    app = App()
    app.page("/", "<p>é")
    app.page("/style", b"p { }", content_type="text/css")
    app.page("/empty", "")
    return app
