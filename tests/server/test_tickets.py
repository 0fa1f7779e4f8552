"""Tickets: valid once, for a short time, and only with the signature of a known secret."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.clients import Client, Clients, upgrade
from tests.support.log import ServerLog
from tests.support.redis_server import RedisServer
from tests.support.serving import Serve
from wsframe.server import App, BrokerUnavailable, Tickets, WebSocket

SECRET = "a secret for the tests"
OTHER = b"another secret, as bytes"


class Clock:
    """The time, which only the test changes."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def changed(ticket: str, position: int) -> str:
    """Return a ticket with another character at a position."""
    new = "A" if ticket[position] != "A" else "B"
    return ticket[:position] + new + ticket[position + 1 :]


def test_a_ticket_is_accepted_once() -> None:
    tickets = Tickets(SECRET)
    for identity in ("ann", "ünïcode", "x" * 512):
        ticket = tickets.issue(identity)
        assert quote(ticket, safe="") == ticket
        assert len(ticket) < 1024
        assert tickets.redeem(ticket) == identity
        assert tickets.redeem(ticket) is None
        assert tickets.redeem(f"{ticket}=") is None
    assert tickets.issue("ann") != tickets.issue("ann")


def test_one_of_many_threads_redeems_a_ticket() -> None:
    tickets = Tickets(SECRET)
    ticket = tickets.issue("ann")
    barrier = threading.Barrier(8)
    found: list[str | None] = []

    def redeem() -> None:
        barrier.wait()
        found.append(tickets.redeem(ticket))

    threads = [threading.Thread(target=redeem) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == ["None"] * 7 + ["ann"]


def test_a_forged_ticket_is_refused() -> None:
    tickets, foreign = Tickets(SECRET), Tickets(OTHER)
    ticket = tickets.issue("ann")
    forged = [changed(ticket, position) for position in (0, 42, 50, 70, len(ticket) - 2)]
    for wrong in (*forged, foreign.issue("ann"), "", "a", "é" * 80, "?" * 80, "A" * 100_000):
        assert tickets.redeem(wrong) is None
    assert tickets.redeem(ticket) == "ann"


def test_a_ticket_expires(clock: Clock) -> None:
    tickets = Tickets(SECRET, max_age=5.0, clock=clock)
    early, late = tickets.issue("ann"), tickets.issue("ann")
    clock.now += 4.9
    assert tickets.redeem(early) == "ann"
    clock.now += 0.1
    assert tickets.redeem(late) is None


def test_secrets_can_be_changed() -> None:
    old, new = Tickets(OTHER), Tickets([SECRET, OTHER])
    assert new.redeem(old.issue("ann")) == "ann"
    assert Tickets(SECRET).redeem(new.issue("ann")) == "ann"
    assert old.redeem(new.issue("ann")) is None


def test_the_memory_of_used_tickets_is_bounded(clock: Clock, log: ServerLog) -> None:
    tickets = Tickets(SECRET, max_age=5.0, max_used=3, clock=clock)
    used = [tickets.issue("ann") for _ in range(3)]
    assert [tickets.redeem(ticket) for ticket in used] == ["ann"] * 3
    assert tickets.redeem(tickets.issue("ann")) is None
    clock.now -= 30  # a clock that is set back makes no used ticket valid
    assert tickets.redeem(used[0]) is None
    clock.now += 30 + 5 + 60
    assert tickets.redeem(tickets.issue("bob")) == "bob"
    log.expect("3 used tickets are remembered (max_used)", logging.WARNING)


def test_a_ticket_with_a_longer_life_delays_no_other_from_being_forgotten(clock: Clock) -> None:
    long = Tickets(SECRET, max_age=3600.0, clock=clock)
    short = Tickets(SECRET, max_age=5.0, max_used=3, clock=clock)
    lasting = long.issue("ann")
    assert short.redeem(lasting) == "ann"
    for _ in range(4):
        assert short.redeem(short.issue("bob")) == "bob"
        clock.now += 100
    assert short.redeem(lasting) is None


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="secret must have at least 16 bytes: 3"):
        Tickets("abc")
    with pytest.raises(ValueError, match="secret must not be an empty sequence"):
        Tickets([])
    with pytest.raises(ValueError, match="max_age must be positive: 0"):
        Tickets(SECRET, max_age=0)
    with pytest.raises(ValueError, match="max_used must be positive: nan"):
        Tickets(SECRET, max_used=float("nan"))  # type: ignore[arg-type]
    for identity in ("", "x" * 513):
        with pytest.raises(ValueError, match=r"identity must have 1 to 512 bytes in UTF-8: \d+"):
            Tickets(SECRET).issue(identity)


def make_app(tickets: Tickets) -> App:
    app = App()

    @app.websocket("/", authorize=tickets.authorize)
    def greet(ws: WebSocket) -> None:
        ws.send(ws.request.identity)

    return app


def test_a_route_accepts_clients_with_a_ticket(serve: Serve, clients: Clients) -> None:
    tickets = Tickets(SECRET)
    server = serve(make_app(tickets))
    ticket = tickets.issue("ann")
    assert clients.websocket(server, f"/?ticket={ticket}").next_event() == "ann"
    for target in (f"/?ticket={ticket}", "/", f"/?ticket={tickets.issue('x')}&ticket=2"):
        refused = clients.connect(server)
        refused.send(upgrade(target))
        assert refused.answer().status == 403


def test_processes_share_used_tickets_in_redis(
    tmp_path: Path, serve: Serve, log: ServerLog
) -> None:
    with RedisServer(tmp_path) as redis:
        one, two = (Tickets(SECRET, redis=redis.url) for _ in range(2))
        try:
            ticket, other = one.issue("ann"), one.issue("bob")
            assert one.redeem(ticket) == "ann"
            assert two.redeem(ticket) is None
            redis.restart()
            assert two.redeem(other) == "bob"
            redis.kill()
            with pytest.raises(
                BrokerUnavailable, match=r"cannot redeem a ticket, because Redis at .* has failed: "
            ):
                two.redeem(one.issue("ann"))
            client = Client(serve(make_app(one)).port)
            client.send(upgrade(f"/?ticket={one.issue('ann')}"))
            answer = client.answer()
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert answer.body == b"tickets cannot be checked at the moment\n"
            log.expect("cannot redeem a ticket, because Redis at ", logging.WARNING)
            client.close()
        finally:
            one.close()
            two.close()


def test_closing_without_redis_does_nothing() -> None:
    Tickets(SECRET).close()
