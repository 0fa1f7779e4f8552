"""Events of an App without a server, which reach no client."""

from __future__ import annotations

import logging

from tests.support.log import ServerLog
from wsframe.asgi import Topics
from wsframe.server import App
from wsframe.server.timing import Timing
from wsframe.wsgi import Live

UNSERVED = "the topic 'news' has no subscribers, because no server of its App has started"


def test_events_of_an_app_without_a_server_are_logged_once(log: ServerLog) -> None:
    app = App(timing=Timing(unserved_delay=0))
    for name in ("news", "news", "other"):
        app.topic(name).publish("hello")
    app.topic("other").close()
    log.expect(UNSERVED, logging.WARNING)
    assert not log.records


def test_the_line_comes_at_the_end_of_a_program(log: ServerLog) -> None:
    app = App()
    app.topic("news").publish("hello")
    assert not log.records
    app.close()
    log.expect(UNSERVED, logging.WARNING)


def test_events_before_the_start_of_a_server_and_without_clients_are_not_logged(
    log: ServerLog,
) -> None:
    app = App()

    @app.on_start
    def publish() -> None:
        app.topic("news").publish("second")

    app.topic("news").publish("first")
    with app.start("127.0.0.1"):
        app.topic("news").publish("third")
    app.topic("news").publish("fourth")
    app.close()
    assert not log.records


def test_only_apps_expect_a_server(log: ServerLog) -> None:
    for service in (Live(), Topics()):
        service.topic("news").publish("hello")
        service.close()
    assert not log.records


def test_closing_a_topic_without_subscribers_logs_nothing(log: ServerLog) -> None:
    app = App(timing=Timing(unserved_delay=0))
    app.topic("news").close()
    assert not log.records
