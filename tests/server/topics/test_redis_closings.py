"""Closing the connections of a user in several processes over Redis."""

from __future__ import annotations

import logging
from contextlib import suppress
from time import monotonic
from typing import Any

import pytest

from tests.support.clients import Clients, WebSocketClient, upgrade
from tests.support.closings import DROPPING, INVALID_CLOSINGS
from tests.support.handlers import Checkpoint, generator_echo
from tests.support.inspection import topics_of
from tests.support.log import ServerLog
from tests.support.redis_server import RedisServer
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Close
from wsframe.server import App, BrokerRefused, EventsLost, Request, Server
from wsframe.server.topics.closings import CLOSINGS, MAX_REMEMBERED, Closings
from wsframe.server.topics.entry import Entry
from wsframe.server.topics.redis.streams import RedisStreams
from wsframe.server.topics.shared import LocalLog, SharedLog


def user(request: Request) -> str:
    return request.query["user"][0]


def make_app(redis_server: RedisServer) -> App:
    """Return the app of one process."""
    app = App(redis=redis_server.url)
    app.websocket("/", authorize=user)(generator_echo)
    return app


def connect(clients: Clients, server: Server, name: str) -> WebSocketClient:
    return clients.websocket(server, f"/?user={name}")


def check_open(client: WebSocketClient) -> None:
    client.send_messages("open")
    assert client.next_event() == "open"


def test_another_process_closes_the_connections(
    serve: Serve, clients: Clients, redis_server: RedisServer
) -> None:
    here, there = make_app(redis_server), make_app(redis_server)
    servers = [serve(here), serve(there)]
    both = [connect(clients, server, "ann") for server in servers]
    bob = connect(clients, servers[1], "bob")
    here.close_identity("ann", code=4001, reason="banned")
    assert [each.expect_close() for each in both] == [Close(4001, "banned")] * 2
    check_open(bob)


def test_a_process_without_a_server_closes_the_connections_of_others(
    serve: Serve, clients: Clients, redis_server: RedisServer
) -> None:
    client = connect(clients, serve(make_app(redis_server)), "ann")
    program = App(redis=redis_server.url)
    program.close_identity("ann")
    program.close()
    assert client.expect_close() == Close(1008, "")


def test_a_process_does_not_close_again_what_it_has_closed(
    serve: Serve, clients: Clients, redis_server: RedisServer
) -> None:
    here, there = make_app(redis_server), make_app(redis_server)
    server = serve(here)
    ann, bob = (connect(clients, server, name) for name in ("ann", "bob"))
    here.close_identity("ann")
    ann.expect_close()
    again = connect(clients, server, "ann")
    here.flush()
    there.close_identity("bob")  # Redis orders it after the first
    bob.expect_close()
    check_open(again)
    there.close()


def test_closings_from_before_are_not_received(
    serve: Serve, clients: Clients, redis_server: RedisServer
) -> None:
    here, there = make_app(redis_server), make_app(redis_server)
    there.close_identity("ann")
    there.flush()
    wait_until_older(redis_server, there)
    server = serve(here)
    ann, bob = (connect(clients, server, name) for name in ("ann", "bob"))
    there.close_identity("bob")
    bob.expect_close()
    check_open(ann)
    there.close()


def test_a_closing_during_authorize_ends_the_first_connection(
    serve: Serve, clients: Clients, redis_server: RedisServer
) -> None:
    """The process begins to receive closings only when it has a connection with an identity."""
    held = Checkpoint()

    def wait(request: Request) -> str:
        held.wait()
        return user(request)

    here, there = App(redis=redis_server.url), make_app(redis_server)
    here.websocket("/", authorize=wait)(generator_echo)
    client = clients.connect(serve(here))
    client.send(upgrade("/?user=ann"))
    held.wait_until_reached()
    there.close_identity("ann")
    there.flush()
    held.release()
    client.read_until(b"\r\n\r\n")
    client.read_until(b"\x88\x02\x03\xf0")  # a close frame with 1008
    there.close()


def wait_until_older(redis_server: RedisServer, app: App) -> None:
    """Wait until the clock of Redis is past the newest closing."""
    with redis_server.client() as client:
        [key] = client.keys("*closed identities}")
        [(newest, _)] = client.xrevrange(key, count=1)
        time = int(newest.partition(b"-")[0])

        def is_past() -> bool:
            seconds, microseconds = client.time()
            return bool(seconds * 1000 + microseconds // 1000 > time)

        wait_until(is_past, "a millisecond has passed")


def test_a_closing_during_an_outage_arrives_after_it(
    serve: Serve, clients: Clients, redis_server: RedisServer
) -> None:
    here, there = make_app(redis_server), make_app(redis_server)
    server = serve(there)
    ann, bob, eve = (connect(clients, server, name) for name in ("ann", "bob", "eve"))
    here.close_identity("ann")  # shows that the process follows the closings
    ann.expect_close()
    redis_server.kill()
    here.close_identity("bob")
    check_open(bob)
    redis_server.start()
    assert bob.expect_close() == Close(1008, "")
    check_open(eve)
    here.close(TIMEOUT)


def test_a_restarted_server_receives_closings(
    serve: Serve, clients: Clients, redis_server: RedisServer
) -> None:
    here, there = make_app(redis_server), make_app(redis_server)
    serve(there).stop()
    for _ in range(2):
        server = there.start("127.0.0.1", 0)
        with server:
            client = connect(clients, server, "ann")
            here.close_identity("ann")
            client.expect_close()
    here.close()


def test_without_an_identity_nothing_is_followed(
    serve: Serve, clients: Clients, redis_server: RedisServer
) -> None:
    app = App(redis=redis_server.url)
    app.websocket("/", authorize=lambda request: True)(generator_echo)
    check_open(clients.websocket(serve(app), "/"))
    with redis_server.client() as client:
        assert client.keys("*") == []


@pytest.mark.parametrize("payload", ["5", *INVALID_CLOSINGS])
def test_invalid_closings_are_logged_and_dropped(
    serve: Serve, clients: Clients, redis_server: RedisServer, log: ServerLog, payload: str
) -> None:
    here, there = make_app(redis_server), make_app(redis_server)
    client = connect(clients, serve(here), "ann")
    shared = topics_of(there).shared
    assert isinstance(shared, RedisStreams)
    shared.publish(topics_of(there).closings, Entry(payload))
    log.expect(DROPPING)
    there.close_identity("ann")
    client.expect_close()
    there.close()


@pytest.mark.parametrize("kind", ["", ":meta"])
def test_closings_under_a_key_of_another_type_stop_no_topic(
    serve: Serve, clients: Clients, redis_server: RedisServer, log: ServerLog, kind: str
) -> None:
    here, there = (make_app(redis_server) for _ in range(2))
    client = connect(clients, serve(there), "ann")
    key = f"wsframe:{{{CLOSINGS}}}{kind}"
    with redis_server.client() as program:
        wait_until(lambda: program.exists(f"wsframe:{{{CLOSINGS}}}:meta"), "closings are followed")
        program.delete(key)
        program.set(key, "of another program")
        here.close_identity("ann")
        line = log.expect("dropping event: Redis rejected the topic ").getMessage()
        assert "has the type string instead of " in line
        here.topic("news").publish("hello")
        with pytest.raises(EventsLost, match="1 published event is lost: Redis rejected"):
            here.flush()
        check_open(client)
        program.delete(key)
    wait_until(lambda: closes(here, "ann"), "closings are accepted again")
    client.expect_close()
    log.discard()
    here.close()


def closes(app: App, identity: str) -> bool:
    with suppress(BrokerRefused):
        app.close_identity(identity)
        return True
    return False


# Without Redis ------------------------------------------------------------------------------------


class Case:
    """Closings whose log the test fills."""

    def __init__(self) -> None:
        self.local = LocalLog()
        self.shared: SharedLog = Broker()
        self.closed: list[str] = []
        self.closings = Closings(self)
        self.closings.add(self.receive)
        self.closings.follow()

    def receive(self, identity: str, code: int, reason: str) -> None:
        self.closed.append(identity)


class Broker(LocalLog):
    """A broker that fills no replica."""

    def follow(self, replica: Any) -> bool:
        return False


def entry(stream_id: str, text: str = '["x", "ann", 1008, ""]', **more: Any) -> Entry:
    return Entry(text, stream_id=stream_id, **more)


LATER = 1 << 50  # a time in the future


@pytest.fixture
def case() -> Case:
    return Case()


def test_a_topic_that_is_loaded_again_repeats_no_closing(case: Case) -> None:
    first, second = entry(f"{LATER}-1"), entry(f"{LATER}-2", '["x", "bob", 1008, ""]')
    case.closings.load("0-0", [entry("5-1"), first])
    assert case.closed == ["ann"]
    case.closings.place()
    case.closings.load("0-0", [first, second])
    assert case.closed == ["ann", "bob"]
    case.closings.load(f"{LATER}-2", [])
    case.closings.append([entry(f"{LATER}-3")])
    assert case.closed == ["ann", "bob", "ann"]
    case.closings.remove(case.receive)
    case.closings.append([entry(f"{LATER}-4")])
    assert len(case.closed) == 3


@pytest.mark.parametrize("how", ["gap", "lose", "load"])
def test_lost_closings_are_logged(case: Case, log: ServerLog, how: str) -> None:
    case.closings.load("0-0", [entry(f"{LATER}-1")])
    if how == "gap":
        case.closings.append([entry(f"{LATER}-2", "", oldest=f"{LATER}-9")])
    elif how == "lose":
        case.closings.lose(f"{LATER}-2", "")
    else:
        case.closings.load("7-0", [entry("7-1", "", oldest="")])
    log.expect("closings of identities may be lost", logging.WARNING)
    assert case.closed == ["ann"]


def test_the_first_load_of_an_old_log_is_no_loss(case: Case, log: ServerLog) -> None:
    case.closings.load("5-0", [entry("7-1")])
    assert not case.closed
    assert not log.records


def test_the_child_of_a_fork_has_no_receivers(case: Case) -> None:
    case.closings.after_fork()
    case.closings.receive("ann", 1008, "")
    assert not case.closed
    assert case.closings.name == CLOSINGS


def test_the_number_of_remembered_closings_is_limited(case: Case) -> None:
    before = monotonic() - 1
    for name in ("twice", "once", "twice", *map(str, range(MAX_REMEMBERED - 1))):
        case.closings.receive(name, 1008, "")
    assert not case.closings.closed_since("once", before)
    assert case.closings.closed_since("twice", before)
    case.closings.receive("newest", 1008, "")
    assert not case.closings.closed_since("twice", before)
    assert case.closings.closed_since("newest", before)
