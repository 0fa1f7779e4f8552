"""Event ids that clients send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.clients import Clients
from tests.support.handlers import two_topics_app
from tests.support.log import ServerLog
from tests.support.serving import Serve
from tests.support.waiting import wait_until
from wsframe import ServerSentEvent
from wsframe.server import App, EventStream
from wsframe.server.topics.places import PLACE_COST, Place, Places
from wsframe.server.topics.sizes import Sizes


@pytest.mark.parametrize(
    "event_id",
    ["a\x01b", "\x7f", "a\tb", " a", "a ", "\t", "x" * 1025, "\U0001f600" * 257, "\x85" * 600],
)
def test_an_id_that_no_header_can_contain_is_rejected(
    serve: Serve, clients: Clients, log: ServerLog, event_id: str
) -> None:
    topic = App().topic("news")
    for wrong in ({"data": "x", "id": event_id}, {"data": ServerSentEvent("x", id=event_id)}):
        with pytest.raises(ValueError, match="event id"):
            topic.publish(**wrong)
    assert topic.stats().published == 0
    app = App()

    @app.sse("/news")
    def news(stream: EventStream) -> Iterator[ServerSentEvent]:
        yield ServerSentEvent("x", id=event_id)

    clients.stream(serve(app), "/news").expect_end()
    log.expect("the handler of /news failed")


@pytest.mark.slow
@pytest.mark.unmeasured
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(min_size=1, max_size=50) | st.text(st.characters(max_codepoint=0x200), min_size=1))
@example("x" * 1024)
@example("\U0001f600" * 256)
@example("\x80\x85\xa0\u2028\ufeff")
@example("%3D&a=b+c;\"'\\")
def test_a_client_can_reconnect_with_any_valid_id(serves_ids: Any, text: str) -> None:
    """As the id of one topic or in a composed id, in a header or in the query."""
    server, topic, connect = serves_ids
    try:
        topic.publish("x", id=text)
    except ValueError:
        return
    topic.publish("after it")
    for path in ("/one", "/two"):
        last_id = text if path == "/one" else "?" + urlencode({"news": text})
        header = ("Last-Event-ID", last_id.encode().decode("latin-1"))
        for stream in (
            connect(server, path, header),
            connect(server, f"{path}?lastEventId={quote(last_id)}"),
        ):
            assert stream.next_event().data == "after it"
            stream.close()


@pytest.fixture
def serves_ids(serve: Serve, clients: Clients) -> Any:
    """Serve one topic alone, and together with another one."""
    app = App()
    topic = app.topic("news")
    app.sse("/one", source=topic)

    @app.sse("/two")
    def two(stream: EventStream) -> None:
        stream.subscribe("other")
        stream.subscribe(topic)

    return serve(app), topic, clients.stream


@pytest.mark.slow
@pytest.mark.parametrize("count", [70, 1000])
def test_a_stream_of_many_topics_reconnects(serve: Serve, clients: Clients, count: int) -> None:
    """The id fits into any request, and subscriptions that begin together send one id."""
    app = App()
    names = [f"room {number}".ljust(30, "x") for number in range(count)]

    @app.sse("/rooms")
    def rooms(stream: EventStream) -> None:
        for name in names:
            stream.subscribe(name)

    server = serve(app)
    first = clients.stream(server, "/rooms")
    wait_until(lambda: server.stats().subscriptions == count, "all subscriptions have begun")
    app.topic(names[0]).publish("1")
    app.topic(names[-1]).publish("2")
    received = first.read_until(b"data: 2\n\n")
    assert len(received) < 8192
    first.decoder.receive(received)
    between = first.last_event_id
    app.topic(names[1]).publish("3")
    assert first.expect(1) == ["3"]
    first.close()
    app.topic(names[0]).publish("4")
    app.topic(names[count // 2]).publish("5")
    for last_id, missed in ((first.last_event_id, ["4", "5"]), (between, ["3", "4", "5"])):
        assert len(last_id) < 100
        for target, headers in (
            ("/rooms", [("Last-Event-ID", last_id)]),
            (f"/rooms?lastEventId={quote(last_id)}", []),
        ):
            again = clients.stream(server, target, *headers)
            assert sorted(again.expect(len(missed))) == missed
            again.close()


def test_a_forgotten_place_is_a_gap_in_every_topic(serve: Serve, clients: Clients) -> None:
    app = two_topics_app()
    server = serve(app)
    for number, unknown in enumerate(("?abcdefghijk.1", "?.", "?a.b", "?x." + "9" * 30, "?")):
        app.topic("a").publish(str(number))
        stream = clients.stream(server, "/both", ("Last-Event-ID", unknown))
        gaps = [stream.next_event(), stream.next_event()]
        assert {json.loads(gap.data)["topic"] for gap in gaps if gap.event == "gap"} == {"a", "b"}


def test_places_are_kept_within_bounds() -> None:
    known = Places(Sizes(max_places_bytes=100 * PLACE_COST, max_listed=20, max_moves=10))
    one, other = Place(known), Place(known)
    for place in (one, other):
        for topic in "abc":
            place.move(topic, "before")
    ids = [one.move("a", str(number)) for number in range(30)]
    assert known.find(ids[-11]) == {"a": "19", "b": "before", "c": "before"}
    assert known.find(ids[-12]) is None
    assert known.find(other.id) == {"a": "before", "b": "before", "c": "before"}
    one.forget("a")
    assert known.find(one.id) == {"b": "before", "c": "before"}
    for _ in range(20):  # the other streams use the memory
        place = Place(known)
        for topic in "abcdefgh":
            place.move(topic, "before")
    assert known.find(one.id) is None
    assert known.find(one.move("a", "again")) == {"a": "again", "b": "before", "c": "before"}
