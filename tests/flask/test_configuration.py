"""The extension: applications, and their configuration."""

from __future__ import annotations

from logging import WARNING
from typing import Any

import pytest
from flask import Flask, Response

from tests.support.clients import Client, StreamClient, parse_response, upgrade
from tests.support.handlers import generator_echo
from tests.support.log import ServerLog
from tests.wsgi import running
from wsframe import wsgi
from wsframe.flask import EventStream, Live

from .conftest import NewLive, Run


def configured(**config: object) -> Flask:
    app = Flask("app")
    app.config.update(config)
    return app


def test_the_extension_has_the_methods_of_live_and_init_app() -> None:
    added = {*dir(Live)} - {*dir(wsgi.Live)}
    assert {name for name in added if not name.startswith("_")} == {"init_app"}


@pytest.mark.parametrize(("configuration", "arguments"), [(0, {}), (9, {"retry": 0.0})])
def test_arguments_take_precedence_over_the_configuration(
    new_live: NewLive, configuration: int, arguments: dict[str, Any]
) -> None:
    app = configured(WSFRAME_RETRY=configuration, WSFRAME_TOPIC_MEMORY=1 << 20)
    live = new_live(**arguments)
    live.init_app(app)
    assert app.extensions == {"wsframe": live}

    @app.get("/events")
    def events() -> Response:
        return live.events(live.topic("news"))

    with running.werkzeug_server(app) as port:
        client = StreamClient(port, "/events")
        assert not client.read_opening().startswith(b"retry:")
        live.topic("news").publish("one")
        assert client.expect(1) == ["one"]
        client.close()


def test_the_origins_of_the_configuration_may_connect(new_live: NewLive) -> None:
    app = configured(WSFRAME_ORIGINS=["https://other.example"])
    live = new_live(app=app)

    @app.get("/ws", websocket=True)
    def view() -> Response:
        return live.websocket(generator_echo)

    with running.werkzeug_server(app) as port:
        for origin, status in (("https://other.example", 101), ("https://evil.example", 403)):
            client = Client(port)
            client.send(upgrade("/ws", ("Origin", origin)))
            assert parse_response(client.read_until(b"\r\n\r\n")).status == status
            client.close()


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("WSFRAME_REDIS_URL", "; use WSFRAME_REDIS"),
        ("WSFRAME_PINGINTERVAL", "; use WSFRAME_PING_INTERVAL"),
        ("WSFRAME_CERT", ""),
    ],
)
def test_an_unknown_key_is_refused_with_a_similar_one(key: str, advice: str) -> None:
    with pytest.raises(ValueError, match=f"unknown key in app.config: {key}{advice}$"):
        Live(configured(**{key: 1}))


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("WSFRAME_LOOPS", -1, ValueError),
        ("WSFRAME_TOPIC_MEMORY", 0, ValueError),
        ("WSFRAME_ORIGINS", "https://one.example", TypeError),
    ],
)
def test_an_invalid_value_is_refused(key: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        Live(configured(**{key: value}))


def test_several_applications_share_topics(new_live: NewLive) -> None:
    live = new_live()

    def handler(stream: EventStream) -> None:
        stream.subscribe("news")

    def view() -> Any:
        return live.events(handler)

    apps = [configured(WSFRAME_HEARTBEAT=0), configured(WSFRAME_HEARTBEAT=0)]
    for app in apps:
        live.init_app(app)
        app.add_url_rule("/events", "events", view)
    first, second = apps
    with running.werkzeug_server(first) as port, running.werkzeug_server(second) as other:
        clients = [StreamClient(port, "/events"), StreamClient(other, "/events")]
        for client in clients:
            client.read_opening()
        live.topic("news").publish("both")
        for client in clients:
            assert client.expect(1) == ["both"]
            client.close()


def test_applications_of_one_live_must_agree(new_live: NewLive) -> None:
    origins = ["https://one.example"]
    live = new_live(
        app=configured(WSFRAME_REDIS_PREFIX="a", WSFRAME_ORIGINS=origins, WSFRAME_RETRY=1)
    )
    live.init_app(configured(WSFRAME_REDIS_PREFIX="a", WSFRAME_ORIGINS=[*origins], WSFRAME_RETRY=1))
    differing = "WSFRAME_HOSTS, WSFRAME_ORIGINS, WSFRAME_REDIS_PREFIX"
    with pytest.raises(ValueError, match=f"must have the same app.config values: {differing}$"):
        live.init_app(
            configured(
                WSFRAME_REDIS_PREFIX="secret",
                WSFRAME_ORIGINS=["https://two.example"],
                WSFRAME_HOSTS=None,
                WSFRAME_RETRY=1,
            )
        )


def test_a_value_that_is_set_too_late_is_an_error(app: Flask, live: Live) -> None:
    app.add_url_rule("/events", "events", lambda: live.events(live.topic("news")))
    app.config.update(
        WSFRAME_REDIS="redis://localhost", WSFRAME_DRAIN=1.0, PROPAGATE_EXCEPTIONS=True
    )
    late = "set after Live.app., and have no effect: WSFRAME_DRAIN, WSFRAME_REDIS; set them before"
    for _ in range(2):
        with pytest.raises(RuntimeError, match=late):
            app.test_client().get("/events")
    del app.config["WSFRAME_REDIS"], app.config["WSFRAME_DRAIN"]
    assert app.test_client().head("/events").status_code == 200


def test_the_log_names_the_key_of_the_origins(app: Flask, live: Live, log: ServerLog) -> None:
    app.add_url_rule("/events", "events", lambda: live.events(live.topic("news")))
    answer = app.test_client().get("/events", headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403
    log.expect(
        'add "http://evil.example" to WSFRAME_ORIGINS in app.config, or to the origins of', WARNING
    )


def test_a_live_without_an_application_is_an_error(app: Flask, new_live: NewLive, run: Run) -> None:
    live = new_live()
    with pytest.raises(RuntimeError, match=r"call live\.init_app\(app\)"):
        live.websocket(generator_echo)


def test_a_live_cannot_be_configured_after_a_connection(new_live: NewLive) -> None:
    live = new_live(app=configured())
    app = configured()
    app.add_url_rule("/events", "events", lambda: live.events(live.topic("news")))
    with running.werkzeug_server(app) as port:
        StreamClient(port, "/events").close()
    with pytest.raises(RuntimeError, match="after its first connection"):
        live.configure(heartbeat=1.0)


def test_the_test_client_gets_a_clear_answer(app: Flask, live: Live) -> None:
    @app.get("/ws", websocket=True)
    def view() -> Response:
        return live.websocket(generator_echo)

    def count(stream: EventStream) -> Any:
        yield from range(3)

    app.add_url_rule("/events", "events", lambda: live.events(count))
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
    }
    with app.test_client() as client:
        answer = client.get("/ws", headers=headers, base_url="ws://localhost")
        assert answer.status_code == 501
        assert "the request has no socket, as in a test client; use a server" in answer.text
        with client.get("/events") as stream:
            assert stream.mimetype == "text/event-stream"
            assert stream.get_data(as_text=True).endswith("data: 2\n\nevent: end\nid: :end\n\n")
