"""``WebSocket.receive``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

import pytest

from tests.support.clients import Clients
from tests.support.handlers import (
    Checkpoint,
    MessageGenerator,
    plain_echo,
    websocket_app,
)
from tests.support.inspection import loops_of, websocket_session
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import WebSocket
from wsframe.server.handoff.wakes import Wakes
from wsframe.server.pure_rounds import Signal
from wsframe.server.rounds import chosen


def test_receive_waits_no_longer_than_its_timeout(serve: Serve, clients: Clients) -> None:
    def poll(ws: WebSocket) -> None:
        for timeout in (0, 0.01):
            try:
                ws.receive(timeout)
            except TimeoutError as error:
                ws.send(str(error))
        ws.send(ws.receive(TIMEOUT))
        ws.send(ws.receive(0))  # it arrived in the same segment
        ws.send(ws.receive())

    client = clients.websocket(serve(websocket_app(poll)), "/echo")
    assert client.expect(2) == ["no message within 0 seconds", "no message within 0.01 seconds"]
    client.send_messages("one", "two")
    assert client.expect(2) == ["one", "two"]
    client.send_messages("three")
    assert client.next_event() == "three"
    client.expect_close()


@pytest.mark.parametrize("timeout", [1e12, float("inf")])
def test_receive_may_wait_longer_than_a_lock_can(
    serve: Serve, clients: Clients, timeout: float
) -> None:
    def echo(ws: WebSocket) -> None:
        ws.send("ready")
        ws.send(ws.receive(timeout))

    client = clients.websocket(serve(websocket_app(echo)), "/echo")
    assert client.next_event() == "ready"
    client.send_messages("one")
    assert client.next_event() == "one"


def test_a_message_received_without_a_wait_wakes_no_later_wait(
    serve: Serve, clients: Clients
) -> None:
    """This holds for waits with and without a timeout."""
    first, come = Checkpoint(), Checkpoint()

    def receive(ws: WebSocket) -> None:
        ws.receive()
        first.wait()
        ws.receive(0)
        try:
            ws.receive(0.01)
        except TimeoutError as error:
            ws.send(str(error))
        come.wait()
        ws.receive(0)
        ws.send(ws.receive())

    server = serve(websocket_app(receive))
    client = clients.websocket(server, "/echo")
    client.send_messages("one")
    first.wait_until_reached()
    client.send_messages("two")
    wait_until(lambda: server.stats().messages_in == 2, "both have come")
    first.release()
    assert client.next_event() == "no message within 0.01 seconds"
    come.wait_until_reached()
    client.send_messages("three")
    wait_until(lambda: server.stats().messages_in == 3, "the third has come")
    come.release()
    client.send_messages("four")
    assert client.next_event() == "four"
    client.expect_close()


def test_a_thread_that_does_not_wait_is_not_woken(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among many threads, its wake-up would delay the threads that wait."""
    held, woken = Checkpoint(), []
    wake_soon = Wakes.add

    def note(wakes: Wakes, ready_signal: Signal) -> None:
        woken.append(ready_signal)
        wake_soon(wakes, ready_signal)

    def receive(ws: WebSocket) -> None:
        ws.receive()
        held.wait()
        ws.send(ws.receive())

    monkeypatch.setattr(Wakes, "add", note)
    server = serve(websocket_app(receive))
    client = clients.websocket(server, "/echo")
    client.send_messages("one")
    held.wait_until_reached()
    woken.clear()
    client.send_messages("two")
    wait_until(lambda: server.stats().messages_in == 2, "both have come")
    assert not woken
    held.release()
    assert client.next_event() == "two"
    client.expect_close()


def test_a_message_that_arrived_in_time_is_received_after_a_late_wake_up(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    class News(chosen.Signal):
        def wait(self, timeout: float | None, following: Signal | None = None) -> bool:
            asleep.set()
            return not come.wait(TIMEOUT)

    asleep, come = threading.Event(), threading.Event()

    def receive(ws: WebSocket) -> None:
        ws.send(ws.receive(1))

    server = serve(websocket_app(receive), loops=1)
    monkeypatch.setattr(loops_of(server)[0].wakes, "new_signal", News)
    client = clients.websocket(server, "/echo")
    assert asleep.wait(TIMEOUT)
    client.send_messages("late")
    wait_until(lambda: server.stats().messages_in == 1, "it has come")
    come.set()
    assert client.next_event() == "late"
    client.expect_close()


def test_a_thread_is_woken_again_after_a_signal_for_an_old_message(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop may signal a message that the thread has already received."""

    class News(chosen.Signal):
        def wait(self, timeout: float | None, following: Signal | None = None) -> bool:
            if not told.is_set():
                sessions.get()._waiting.clear()
                told.set()
                return True
            again.set()
            return super().wait(timeout)

    told, again = threading.Event(), threading.Event()
    sessions: Queue[Any] = Queue()

    def receive(ws: WebSocket) -> None:
        sessions.put(websocket_session(ws))
        ws.send(ws.receive())

    server = serve(websocket_app(receive), loops=1)
    monkeypatch.setattr(loops_of(server)[0].wakes, "new_signal", News)
    client = clients.websocket(server, "/echo")
    assert again.wait(TIMEOUT)
    client.send_messages("hello")
    assert client.next_event() == "hello"
    client.expect_close()


def test_all_threads_are_woken_even_if_none_waits_again(serve: Serve, clients: Clients) -> None:
    together = threading.Barrier(50)

    def meet(ws: WebSocket) -> None:
        for message in ws:
            together.wait(TIMEOUT)
            ws.send(message)

    server = serve(websocket_app(meet))
    visitors = [clients.websocket(server, "/echo") for _ in range(together.parties)]
    for _ in range(3):
        for client in visitors:
            client.send_messages("here")
        for client in visitors:
            assert client.next_event() == "here"


def test_a_thread_that_was_woken_wakes_the_next(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(websocket_app(plain_echo), loops=1)
    (loop,) = loops_of(server)
    after, woken_by = loop.wakes.after, set[str]()

    def note(ready_signal: Any) -> Any:
        woken_by.add(threading.current_thread().name)
        return after(ready_signal)

    monkeypatch.setattr(loop.wakes, "after", note)
    client = clients.websocket(server, "/echo")

    def wait_for_a_message() -> bool:  # unless it arrived before the wait
        client.send_messages("x")
        client.next_event()
        return "wsframe-handler /echo" in woken_by

    wait_until(wait_for_a_message, "the handler's thread was woken")


def test_a_thread_wakes_the_next_when_its_handler_returns(
    serve: Serve, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(ws: WebSocket) -> None:
        ws.send("bye")

    server = serve(websocket_app(leave), loops=1)
    (loop,) = loops_of(server)
    following = loop.wakes.new_signal()
    monkeypatch.setattr(loop.wakes, "after", lambda ready_signal: following)
    client = clients.websocket(server, "/echo")
    assert client.next_event() == "bye"
    assert following.wait(TIMEOUT)
    client.expect_close()


def test_a_generator_cannot_receive(serve: Serve, clients: Clients) -> None:
    def receive(ws: WebSocket) -> MessageGenerator:
        calls: list[Callable[[], object]] = [ws.receive, iter(ws).__next__]
        for call in calls:
            try:
                call()
            except RuntimeError as error:
                ws.send(str(error))
        yield

    client = clients.websocket(serve(websocket_app(receive)), "/echo")
    assert (
        client.expect(2)
        == ["a generator handler must receive with yield, and not with receive()"] * 2
    )
