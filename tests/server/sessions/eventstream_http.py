"""Apps that serve event streams to browsers."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.clients import Clients, Response
from wsframe.server import App, Server

FRIEND = ("Origin", "https://friend.example")


STRANGER = ("Origin", "https://stranger.example")


FRIENDS = ["https://friend.example"]


def ask(clients: Clients, server: Server, request: bytes) -> Response:
    """Return the complete answer to a request that opens no stream."""
    client = clients.connect(server)
    client.send(request)
    return client.answer()


def allowed(answer: Response) -> dict[str, str]:
    """Return the CORS headers of an answer."""
    return {
        name.removeprefix("Access-Control-"): value
        for name, value in answer.headers.items()
        if name.startswith("Access-Control-") or name == "Vary"
    }


def shared_app(origins: Sequence[str]) -> App:
    app = App()
    app.sse("/topic", source=app.topic("silent"), origins=origins)
    app.sse("/handler", origins=origins)(lambda stream: stream.send("hello"))
    return app
