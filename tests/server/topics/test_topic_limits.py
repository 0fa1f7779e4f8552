"""Topics: names, odd values, and memory that clients can cause to be used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from random import Random
from time import monotonic
from typing import Any
from urllib.parse import parse_qs, quote

import pytest

from tests.support.clients import Clients, WebSocketClient
from tests.support.handlers import MessageGenerator, two_topics_app
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import PerMessageDeflate, ServerSentEvent, StateError
from wsframe.server import App, EventStream, Subscription, WebSocket
from wsframe.server.topics.encodings import EVENT_STREAM, message_encoding
from wsframe.server.topics.entry import Entry
from wsframe.server.topics.log import Bounds, LatestLog, Log
from wsframe.server.topics.sizes import Sizes


@pytest.mark.parametrize("name", ["event", "id"])
def test_publish_rejects_lone_surrogates(name: str) -> None:
    """json.loads makes them of a client's input; the subscribers see no error."""
    topic = App().topic("news")
    with pytest.raises(ValueError, match="surrogates not allowed"):
        topic.publish("x", **{name: "\ud800"})
    assert topic.stats().published == 0


def test_a_topic_name_with_a_lone_surrogate_is_rejected() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        App().topic("\ud800")


@pytest.mark.parametrize("event_id", ["?a=1", "?", ":end"])
def test_reserved_ids_are_rejected(event_id: str) -> None:
    topic = App().topic("news")
    for wrong in ({"data": "x", "id": event_id}, {"data": ServerSentEvent("x", id=event_id)}):
        with pytest.raises(ValueError, match=r"must not begin with '\?'|it is reserved"):
            topic.publish(**wrong)


def test_an_empty_id_is_forgotten_for_its_topic_only(serve: Serve, clients: Clients) -> None:
    app = two_topics_app()
    server = serve(app)
    a, b = app.topic("a"), app.topic("b")
    first = clients.stream(server, "/both")
    wait_until(lambda: b.stats().subscribers, "the client is subscribed")
    a.publish("1", id="")
    assert first.expect(1) == ["1"]
    first.close()
    a.publish("2")
    b.publish("3")
    again = clients.stream(server, "/both", ("Last-Event-ID", first.last_event_id))
    assert again.expect(1) == ["3"]


ODD = ["a&b=c", "%3F+ x", "ü?\u2028", "#;=", "", "1-1", '"\\']


@pytest.mark.parametrize("name", ODD)
def test_topic_names_may_contain_any_characters(serve: Serve, clients: Clients, name: str) -> None:
    app = App()
    topic, other = app.topic(name), app.topic("other")

    @app.sse("/both")
    def both(stream: EventStream) -> None:
        stream.subscribe(topic)
        stream.subscribe(other)

    server = serve(app)
    first = clients.stream(server, "/both")
    wait_until(lambda: other.stats().subscribers, "the client is subscribed")
    topic.publish("1", id=name or "empty")
    assert first.expect(1) == ["1"]
    first.close()
    topic.publish("2")
    other.publish("3")
    last_id = first.last_event_id.encode().decode("latin-1")
    again = clients.stream(server, "/both", ("Last-Event-ID", last_id))
    assert sorted(again.expect(2)) == ["2", "3"]
    in_query = clients.stream(server, f"/both?last-event-id={quote(first.last_event_id)}")
    assert sorted(in_query.expect(2)) == ["2", "3"]


def test_a_topic_missing_in_the_last_id_begins_as_for_a_new_client(
    serve: Serve, clients: Clients
) -> None:
    app = App()

    @app.sse("/{names}")
    def several(stream: EventStream, names: str) -> None:
        for name in names:
            stream.subscribe(name, after="")

    server = serve(app)
    a, b, c = (app.topic(name) for name in "abc")
    c.publish("c1")
    first = clients.stream(server, "/ab")
    wait_until(lambda: b.stats().subscribers, "the client is subscribed")
    a.publish("a1")
    assert first.expect(1) == ["a1"]
    first.close()
    again = clients.stream(server, "/abc", ("Last-Event-ID", first.last_event_id))
    assert again.expect(1) == ["c1"]


def test_a_client_disconnected_while_it_reconnects_misses_no_event(
    serve: Serve, clients: Clients
) -> None:
    """Its newest id includes the topics to which the stream has not subscribed again."""
    app = App()
    may_go_on = threading.Event()

    @app.sse("/both")
    def both(stream: EventStream) -> None:
        stream.subscribe("a")
        if stream.request.query:
            assert may_go_on.wait(TIMEOUT)
        else:
            stream.subscribe("b")

    server = serve(app)
    a, b = app.topic("a"), app.topic("b")
    first = clients.stream(server, "/both")
    wait_until(lambda: b.stats().subscribers, "the client is subscribed")
    a.publish("a1")
    assert first.expect(1) == ["a1"]
    first.close()
    wait_until(lambda: not b.stats().subscribers, "the client is unsubscribed")
    a.publish("a2")
    b.publish("b1")
    again = clients.stream(server, "/both?slowly=1", ("Last-Event-ID", first.last_event_id))
    assert again.expect(1) == ["a2"]
    again.close()
    may_go_on.set()
    last = clients.stream(server, "/both", ("Last-Event-ID", again.last_event_id))
    assert last.expect(1) == ["b1"]


def test_ids_omit_topics_to_which_the_client_does_not_return(
    serve: Serve, clients: Clients
) -> None:
    app = App()

    @app.sse("/{names}")
    def several(stream: EventStream, names: str) -> None:
        for name in names:
            stream.subscribe(name)

    server = serve(app)
    first = clients.stream(server, "/abc")
    wait_until(lambda: server.stats().subscriptions == 3, "all subscriptions have begun")
    app.topic("b").publish("b1")
    assert first.expect(1) == ["b1"]
    first.close()
    again = clients.stream(server, "/bd", ("Last-Event-ID", first.last_event_id))
    wait_until(lambda: app.topic("d").stats().subscribers, "the client is subscribed again")
    app.topic("b").publish("b2")
    assert sorted(parse_qs(str(again.next_event().id)[1:])) == ["b", "d"]


def test_ids_omit_topics_that_were_unsubscribed(serve: Serve, clients: Clients) -> None:
    """They would grow without a limit."""
    app = App()
    subscriptions: list[Subscription] = []

    @app.sse("/rooms")
    def rooms(stream: EventStream) -> None:
        subscriptions.extend(stream.subscribe(f"room {number}") for number in range(10))

    server = serve(app)
    stream = clients.stream(server, "/rooms")
    wait_until(lambda: server.stats().subscriptions == 10, "all subscriptions have begun")
    for subscription in subscriptions[1:-1]:
        subscription.close()
    wait_until(lambda: server.stats().subscriptions == 2, "most have ended")
    app.topic("room 9").publish("x")
    assert list(parse_qs(str(stream.next_event().id)[1:])) == ["room 0", "room 9"]


def test_the_length_of_names_is_limited() -> None:
    app = App()
    for name in ("x" * 1025, "\U0001f600" * 257):
        with pytest.raises(ValueError, match="the name of a topic is too long: "):
            app.topic(name)
        for what in ("event", "key"):
            with pytest.raises(ValueError, match=f"the name of an? {what} is too long: "):
                app.topic("news").publish("x", **{what: name})
    app.topic("x" * 1024).publish("x", event="x" * 1024, key="x" * 1024)


@pytest.mark.parametrize("kind", ["stream", "websocket"])
def test_the_subscriptions_of_a_connection_are_limited(
    serve: Serve, clients: Clients, kind: str
) -> None:
    app = App()
    refused: list[str] = []

    def subscribe(connection: Any) -> list[Subscription]:
        subscriptions = []
        for number in range(5):
            try:
                subscriptions.append(connection.subscribe(f"room {number}"))
            except StateError as error:
                refused.append(str(error))
        return subscriptions

    @app.sse("/stream")
    def stream(stream: EventStream) -> None:
        subscribe(stream)

    @app.websocket("/websocket")
    def websocket(ws: WebSocket) -> MessageGenerator:
        subscribe(ws)[0].close()
        yield
        ws.subscribe("there is room again")
        ws.send("done")
        yield

    server = serve(app, max_subscriptions=3)
    client: Any = getattr(clients, kind)(server, f"/{kind}")
    wait_until(lambda: len(refused) == 2, "two are refused")
    assert "has 3 subscriptions" in refused[0]
    assert "(max_subscriptions)" in refused[0]
    assert app.stats().topics == 3  # rejected subscriptions have created no topic
    if kind == "websocket":
        client.send_messages("next")
        assert client.next_event() == "done"


def test_topics_are_forgotten(serve: Serve, clients: Clients) -> None:
    app = App()
    app.topic("declared", history=7)

    @app.websocket("/room")
    def room(ws: WebSocket) -> MessageGenerator:
        ws.subscribe(app.topic("room", max_age=0.0))
        while True:
            yield

    server = serve(app)
    client = clients.websocket(server, "/room")
    wait_until(lambda: app.stats().topics == 2, "the topic exists")
    client.leave()
    wait_until(lambda: app.stats().topics == 1, "the topic is forgotten")
    for number in range(100):
        app.topic(f"old {number}", max_age=0.0).publish("x")
    assert app.stats().topics <= 2
    for number in range(100):
        app.topic(f"new {number}").publish("x")
    assert app.stats().topics == 101


def test_a_quiet_topic_is_not_forgotten_at_once(serve: Serve, clients: Clients) -> None:
    """Its only client reconnects, and receives no gap."""
    app = App()

    @app.sse("/room")
    def room(stream: EventStream) -> None:
        stream.subscribe("room")

    server = serve(app)
    first = clients.stream(server, "/room")
    first.read_opening()
    first.close()
    wait_until(lambda: not server.stats().subscriptions, "the client is unsubscribed")
    again = clients.stream(server, "/room", ("Last-Event-ID", first.last_event_id))
    again.read_opening()
    assert again.last_event_id == first.last_event_id


@pytest.mark.parametrize("what", ["events", "names"])
def test_the_memory_of_unused_topics_is_limited(what: str) -> None:
    app = App(topic_sizes=Sizes(max_unused_bytes=1 << 20))
    for number in range(100 if what == "events" else 1000):
        for _ in range(100 if what == "events" else 1):
            app.topic(f"{number}".ljust(10 if what == "events" else 1024)).publish("")
    # The memory of a topic: 100 events of 512 bytes and more, or a name and an event; and 2 KiB.
    assert app.stats().topics <= (21 if what == "events" else 300)


def visit_rooms(client: WebSocketClient, count: int, *, talk: bool = False) -> None:
    """Subscribe to so many topics, one after the other, and unsubscribe again."""
    client.send_messages(*(f"{'talk' if talk else 'visit'} {number}" for number in range(count)))
    client.send_messages("done")
    while (event := client.next_event()) != "done":
        assert event == ""  # sent if the turn lost the loop between two rooms


@pytest.mark.parametrize("talk", [False, True], ids=["empty rooms", "rooms with a history"])
def test_topics_invented_by_one_client_drive_out_no_others(
    serve: Serve, clients: Clients, talk: bool
) -> None:
    app = App(topic_sizes=Sizes(max_unused=80))

    @app.websocket("/rooms")
    def rooms(ws: WebSocket) -> MessageGenerator:
        while True:
            what, _, name = str((yield)).partition(" ")
            if what == "done":
                ws.send(what)
                continue
            with ws.subscribe(name):
                if what == "talk":
                    app.topic(name).publish("")

    server = serve(app, trusted_proxies=["127.0.0.1"])
    for number in range(20):
        app.topic(f"kept {number}").publish("x")
    first = clients.websocket(server, "/rooms", ("X-Forwarded-For", "192.0.2.1"))
    second = clients.websocket(server, "/rooms", ("X-Forwarded-For", "192.0.2.2"))
    visit_rooms(first, 5, talk=True)
    visit_rooms(second, 5)  # so that these topics do not belong to the first client alone
    visit_rooms(first, 300, talk=talk)
    assert all(app.topic(f"kept {number}").stats().history for number in range(20))
    assert all(app.topic(f"{number}").stats().history for number in range(5))
    wait_until(lambda: app.stats().topics <= 80, "the other topics are forgotten")


def test_topics_without_events_are_forgotten_first() -> None:
    app = App(topic_sizes=Sizes(max_unused=10))
    for number in range(8):
        app.topic(f"kept {number}").publish("x")
    for number in range(100):
        topic = app.topic(f"empty {number}", history=0)
        topic.publish("x")
        del topic
    assert all(app.topic(f"kept {number}").stats().history for number in range(8))


@pytest.mark.parametrize("name", ["event", "id", "key"])
def test_the_size_of_an_event_includes_all_its_texts(name: str) -> None:
    topic = App().topic("news", max_bytes=1000)
    for number in range(10):
        topic.publish("", **{name: f"{number}" * 400})
    assert topic.stats().history == 2
    assert topic.stats().history_bytes == 800


def test_clients_with_different_client_parameters_share_bytes() -> None:
    """Parameters of clients must not multiply the encodings of an event."""
    agreed = [
        PerMessageDeflate(
            server_no_context_takeover=True,
            client_no_context_takeover=takeover,
            client_max_window_bits=bits,
        )
        for takeover in (False, True)
        for bits in range(8, 16)
    ]
    assert len({message_encoding(deflate, envelope=False) for deflate in agreed}) == 1
    assert len({message_encoding(deflate, envelope=True) for deflate in agreed}) == 1
    kept = PerMessageDeflate()
    assert message_encoding(kept, envelope=False) is message_encoding(None, envelope=False)


@pytest.mark.parametrize("kind", [Log, LatestLog])
def test_a_large_event_is_sent_alone(kind: type[Log]) -> None:
    """All lagging clients share its bytes; in a piece with other events each would have a copy."""
    events = kind(Bounds(), monotonic)
    for size in (10, 10, 10_000, 10, 10):
        events.append(Entry("x" * size, key=f"{events.head}"))
    pieces, position = [], 0
    while position < events.head:
        found, position = events.after(position, events.head, 1000)
        pieces.append([len(entry.data) for entry in found])
    assert pieces == [[10, 10], [10_000], [10, 10]]


@pytest.mark.parametrize(
    "kind", [Log, partial(LatestLog, spare_positions=1)], ids=["all", "latest"]
)
def test_entries_between_two_positions(kind: Callable[..., Log]) -> None:
    random, events = Random(1), kind(Bounds(history=6), monotonic)
    left: dict[int, str] = {}
    for number in range(1, 500):
        key = random.choice("abcdefgh")
        events.append(Entry("x", key=key))
        events.trim(lambda entry: False)
        if isinstance(events, LatestLog):
            left = {place: other for place, other in left.items() if other != key}
        left = dict([*left.items(), (number, key)][-6:])
        position, to = sorted(random.choices(range(number + 1), k=2))
        found, reached = events.after(position, to)
        assert [entry.position for entry in found] == [n for n in left if position < n <= to]
        assert reached == to


def test_the_encodings_of_forgotten_entries_are_not_counted() -> None:
    events, entries = Log(Bounds(history=1), monotonic), [Entry("a"), Entry("b")]
    for entry in entries:
        events.append(entry)
    events.trim(lambda entry: False)
    for entry in entries:
        EVENT_STREAM.once("news", entry)
    events.count_encodings(entries)
    assert events.encodings_cost == entries[1].encodings_cost > 0


def test_an_end_that_is_forgotten_removes_no_event() -> None:
    """A topic continues after its end if Redis has lost the end."""
    events = LatestLog(Bounds(history=1), monotonic)
    for entry in (Entry("", last=True), Entry("1")):
        events.append(entry)
    events.trim(lambda entry: False)
    assert [entry.data for entry in events.after(0, events.head)[0]] == ["1"]
    events.append(Entry("2"))  # of the same key
    assert [entry.data for entry in events.after(0, events.head)[0]] == ["2"]
