"""Apps with topics."""

from __future__ import annotations

from typing import Any

from tests.support.handlers import MessageGenerator
from tests.support.waiting import wait_until
from wsframe.server import App, Topic, WebSocket


def topics_app(**options: Any) -> tuple[App, Topic]:
    """Return an app with a topic for both kinds of clients."""
    app = App()
    topic = app.topic("news", **options)
    app.sse("/events", source=topic)

    @app.websocket("/messages")
    def messages(ws: WebSocket) -> MessageGenerator:
        with ws.subscribe("news"):
            while True:
                yield

    @app.websocket("/envelopes")
    def envelopes(ws: WebSocket) -> MessageGenerator:
        after, otherwise = (
            ws.request.query.get(name, [None])[0] for name in ("after", "otherwise")
        )
        ws.subscribe("news", after=after, otherwise=otherwise, envelope=True)
        while True:
            yield

    return app, topic


def subscribed(topic: Topic, count: int) -> None:
    wait_until(
        lambda: (topic.stats().subscribers, topic.stats().lagging) == (count, 0),
        f"there are {count} subscribers, none of them lagging",
    )
