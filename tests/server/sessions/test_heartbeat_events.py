"""Heartbeats that a page can see: events of a silent event stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from queue import Queue
from typing import Any

import pytest

from tests.support.clients import Clients, StreamClient
from tests.support.inspection import peers_of
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, EventStream, Server, Settings
from wsframe.server.sessions.eventstream_session import EventStreamSession
from wsframe.server.sockets.peer import Peer

LONG = 60.0


def stay_silent(server: Server) -> None:
    """Have the owner of each connection find that it was silent for its heartbeat interval."""
    done: Queue[None] = Queue()

    def check(peer: Peer) -> None:
        session = peer.session
        assert isinstance(session, EventStreamSession)
        session.begin_heartbeat()
        session.deadline_passed()
        done.put(None)

    for peer in peers_of(server):
        peer.loop.call_soon(partial(check, peer))
        done.get(timeout=TIMEOUT)


def beats(client: StreamClient, server: Server, kind: str = "beat") -> None:
    """Check that a silent stream sends one heartbeat, which leaves the last event id alone."""
    before = client.last_event_id
    stay_silent(server)
    assert client.receive() == f"event: {kind}\ndata: \n\n".encode()
    assert client.last_event_id == before


def fed_by_topic(app: App, **options: Any) -> None:
    app.sse("/", app.topic("news"), **options)


def with_generator(app: App, **options: Any) -> None:
    def wait(stream: EventStream) -> Iterator[str]:
        yield "hello"
        stream.get(Queue[str]())

    app.sse("/", **options)(wait)


def with_function(app: App, **options: Any) -> None:
    app.sse("/", **options)(lambda stream: stream.send("hello"))


def of_two_topics(app: App, **options: Any) -> None:
    def subscribe(stream: EventStream) -> None:
        stream.subscribe(app.topic("news"))
        stream.subscribe(app.topic("weather"))

    app.sse("/", **options)(subscribe)


KINDS = (fed_by_topic, with_generator, with_function, of_two_topics)


@pytest.mark.parametrize("register", KINDS)
@pytest.mark.parametrize("place", ["route", "settings", "route before settings"])
def test_a_silent_stream_sends_events(
    serve: Serve, clients: Clients, register: Callable[..., None], place: str
) -> None:
    app = App()
    register(app, **({} if place == "settings" else {"heartbeat_event": "beat"}))
    event = {"route": "", "settings": "beat", "route before settings": "other"}[place]
    server = serve(app, heartbeat=LONG, heartbeat_event=event)
    client = clients.stream(server, "/")
    if register in (with_generator, with_function):
        client.expect(1)
    else:
        client.read_opening()
        topics = 1 if register is fed_by_topic else 2
        wait_until(lambda: server.stats().subscriptions == topics, "every subscription has begun")
        if topics == 2:
            app.topic("weather").publish("sunny")
            client.expect(1)
    beats(client, server)
    beats(client, server)


def test_a_route_may_keep_comments(serve: Serve, clients: Clients) -> None:
    app = App()
    fed_by_topic(app, heartbeat_event="")
    server = serve(app, heartbeat=LONG, heartbeat_event="beat")
    client = clients.stream(server, "/")
    client.read_opening()
    stay_silent(server)
    assert client.receive() == b":\n\n"


def test_clients_of_one_topic_have_the_same_events_between_heartbeats(
    serve: Serve, clients: Clients
) -> None:
    app = App()
    topic = app.topic("news")
    app.sse("/seen", topic, heartbeat_event="beat")
    app.sse("/unseen", topic)
    server = serve(app, heartbeat=LONG)
    seeing, other = clients.stream(server, "/seen"), clients.stream(server, "/unseen")
    for client in (seeing, other):
        client.read_opening()
    for number in range(3):
        stay_silent(server)
        topic.publish(str(number))
        assert seeing.next_event().event == "beat"
        assert [client.next_event().data for client in (seeing, other)] == [str(number)] * 2
    assert seeing.last_event_id == other.last_event_id


def test_a_client_resumes_after_heartbeats(serve: Serve, clients: Clients) -> None:
    app = App()
    fed_by_topic(app, heartbeat_event="beat")
    server = serve(app, heartbeat=LONG)
    client = clients.stream(server, "/")
    opening = client.read_opening()
    beats(client, server)
    client.close()
    app.topic("news").publish("missed")
    assert f"id: {client.last_event_id}\n".encode() in opening
    again = clients.stream(server, "/", ("Last-Event-ID", client.last_event_id))
    assert again.expect(1) == ["missed"]


def test_a_stream_with_events_sends_no_heartbeats(serve: Serve, clients: Clients) -> None:
    app = App()
    fed_by_topic(app, heartbeat_event="beat")
    server = serve(app, heartbeat=LONG)
    client = clients.stream(server, "/")
    client.read_opening()
    (peer,) = peers_of(server)
    for number in range(4):
        app.topic("news").publish(str(number))
        assert client.next_event().data == str(number)
        peer.loop.call_soon(peer.deadline_passed)
    stay_silent(server)
    assert client.next_event().event == "beat"


def test_there_are_no_heartbeats_without_an_interval(serve: Serve, clients: Clients) -> None:
    app = App()
    fed_by_topic(app, heartbeat_event="beat")
    server = serve(app, heartbeat=0)
    clients.stream(server, "/").read_opening()
    (peer,) = peers_of(server)
    assert peer.deadline == float("inf")


INVALID = [
    ("end", "heartbeat_event must be another type, because 'end' has a meaning"),
    ("gap", "heartbeat_event must be another type, because 'gap' has a meaning"),
    ("a\nb", "heartbeat_event is not valid: an event's event must not contain CR, LF or NUL"),
    ("\ud800", "heartbeat_event is not valid: 'utf-8' codec can't encode"),
]


@pytest.mark.parametrize(("event", "error"), INVALID)
def test_an_invalid_type_is_refused(event: str, error: str) -> None:
    app = App()
    with pytest.raises(ValueError, match=error):
        fed_by_topic(app, heartbeat_event=event)
    with pytest.raises(ValueError, match=error):
        Settings(heartbeat_event=event)
    with pytest.raises(TypeError, match="event must be str or None"):
        fed_by_topic(app, heartbeat_event=5)


def test_the_setting_requires_an_interval() -> None:
    with pytest.raises(ValueError, match="heartbeat_event requires heartbeat"):
        Settings(heartbeat=0, heartbeat_event="beat")
