"""The statistics of a server, and their OpenMetrics format."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
import weakref
from queue import Queue

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.clients import Clients, get, masked, upgrade
from tests.support.handlers import MessageGenerator, generator_echo, websocket_app
from tests.support.inspection import loops_of, wait_for_disconnects
from tests.support.serving import Serve
from tests.support.threads import NewThreads
from tests.support.waiting import TIMEOUT, wait_until
from wsframe import Opcode, Pong
from wsframe.server import App, Stats, WebSocket
from wsframe.server.reports.stats import METRICS


def test_connections_are_counted_by_kind(serve: Serve, clients: Clients) -> None:
    app = websocket_app(generator_echo)
    app.sse("/events", source=Queue())
    server = serve(app)
    websockets = [clients.websocket(server, "/echo") for _ in range(3)]
    streams = [clients.stream(server, "/events") for _ in range(2)]
    silent = clients.connect(server)
    wait_until(lambda: server.stats().requests == 1, "the silent client is connected")
    stats = server.stats()
    assert (stats.websockets, stats.event_streams, stats.accepted) == (3, 2, 6)
    for websocket in websockets:
        websocket.leave()
    for other in (*streams, silent):
        other.close()
    wait_for_disconnects(server)
    stats = server.stats()
    assert (stats.requests, stats.websockets, stats.event_streams, stats.accepted) == (0, 0, 0, 6)
    server.stop()
    assert server.stats().accepted == 6


def test_counters_are_kept_after_the_connection_has_ended(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo))
    client = clients.websocket(server, "/echo")
    client.send(masked(Opcode.PING, b"no message"))
    assert client.next_event() == Pong(b"no message")
    client.send_messages("one", "two", "three")
    client.expect(3)
    assert (server.stats().messages_in, server.stats().messages_out) == (3, 3)
    client.leave()
    wait_for_disconnects(server)
    assert (server.stats().messages_in, server.stats().messages_out) == (3, 3)
    again = clients.websocket(server, "/echo")
    again.send_messages("four")
    assert again.next_event() == "four"
    assert server.stats().messages_in == 4


def test_bytes_are_counted_as_on_the_wire(serve: Serve, clients: Clients) -> None:
    app = App()
    app.page("/", "page" * 200_000)
    server = serve(app)
    client = clients.connect(server, receive_buffer=4096)
    client.send(get("/"))
    received = client.read_to_end()
    client.close()
    wait_for_disconnects(server)
    assert (server.stats().bytes_in, server.stats().bytes_out) == (len(get("/")), len(received))


def test_refusals_are_counted_by_status(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo))
    for request in (get("/a"), get("/b"), get("/echo"), b"nonsense\r\n\r\n"):
        client = clients.connect(server)
        client.send(request)
        client.answer()
    assert server.stats().refused == {404: 2, 426: 1, 400: 1}


def test_threads_and_handlers_are_counted(serve: Serve, clients: Clients) -> None:
    go = threading.Event()

    def waits(ws: WebSocket) -> MessageGenerator:
        go.wait(TIMEOUT)
        yield

    server = serve(
        websocket_app(waits, blocking=True),
        max_threads=2,
        max_thread_share=1,
        thread_timeout=TIMEOUT,
    )
    before = server.stats()
    assert (before.handlers_in_threads, before.handlers_waiting, before.loops) == (0, 0, 1)
    opened = [clients.connect(server) for _ in range(5)]
    for client in opened:
        client.send(upgrade("/echo"))
    wait_until(lambda: server.stats().handlers_waiting == 3, "three wait")
    stats = server.stats()
    assert stats.handlers_in_threads == 2
    assert stats.threads == before.threads + 2
    go.set()


def test_all_threads_of_the_server_are_counted(serve: Serve) -> None:
    app = App()
    app.sse("/a", source=Queue())
    app.sse("/b", source=Queue())
    threads = NewThreads()
    server = serve(app, loops=2)
    assert server.stats().threads == len(threads) == 7
    assert server.stats().loops == 2


def test_handoffs_are_counted(serve: Serve, clients: Clients) -> None:
    go = threading.Event()

    def blocks(ws: WebSocket) -> MessageGenerator:
        yield
        go.wait(TIMEOUT)

    server = serve(websocket_app(blocks))
    client = clients.websocket(server, "/echo")
    client.send_messages("block")
    wait_until(lambda: server.stats().handoffs >= 1, "the loop is handed off")
    go.set()


def test_events_of_a_queue_are_counted(serve: Serve, clients: Clients) -> None:
    source: Queue[str] = Queue()
    app = App()
    app.sse("/events", source=source)
    server = serve(app)
    streams = [clients.stream(server, "/events") for _ in range(3)]
    for event in ("a", "b"):
        source.put(event)
    for stream in streams:
        assert stream.expect(2) == ["a", "b"]
    wait_until(lambda: app.stats().topic_events == 6, "each event for each stream is counted")
    stats = app.stats()
    assert stats.messages_out == 6
    assert (stats.topics, stats.subscriptions, stats.published) == (0, 3, 2)


def test_slow_clients_are_counted(serve: Serve, clients: Clients) -> None:
    source: Queue[str] = Queue()
    app = App()
    app.sse("/events", source=source)
    server = serve(app)
    clients.stream(server, "/events", receive_buffer=4096)
    deadline = time.monotonic() + TIMEOUT
    while not server.stats().slow_clients:
        assert time.monotonic() < deadline, "the slow client is still connected"
        source.put("x" * 100_000)
        source.join()
    assert server.stats().slow_clients == 1


@pytest.mark.slow
def test_clients_that_do_not_answer_a_ping_are_counted(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo), ping_interval=0.01, ping_timeout=0.01)
    client = clients.websocket(server, "/echo")
    wait_until(lambda: server.stats().ping_timeouts == 1, "the client is given up")
    client.close()
    wait_for_disconnects(server)
    assert server.stats().messages_out == 0  # the server's ping is not counted


def test_statistics_do_not_wait_for_the_owner_of_a_loop(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo))
    clients.websocket(server, "/echo")
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go.wait(TIMEOUT)

    loops_of(server)[0].call_soon(hold)
    assert held.wait(TIMEOUT)
    assert server.stats().websockets == 1
    go.set()


@pytest.mark.slow
@pytest.mark.unmeasured
def test_sums_do_not_decrease_while_connections_end(serve: Serve, clients: Clients) -> None:
    server = serve(websocket_app(generator_echo))
    ended = threading.Event()
    seen: list[Stats] = []

    def watch() -> None:
        while not ended.is_set():
            seen.append(server.stats())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        for _ in range(100):
            client = clients.websocket(server, "/echo", first=masked(Opcode.TEXT, "x" * 100))
            client.next_event()
            client.leave()
    finally:
        ended.set()
        watching.join()
    for name in ("messages_in", "messages_out", "bytes_in", "bytes_out", "accepted"):
        values = [getattr(stats, name) for stats in seen]
        assert values == sorted(values)


# Of an app, and as text ---------------------------------------------------------------------------


def test_the_statistics_of_an_app_are_the_sum_over_its_running_servers(
    serve: Serve, clients: Clients
) -> None:
    app = websocket_app(generator_echo)
    # Lost records are counted for the process, so other tests may have lost some.
    assert dataclasses.replace(app.stats(), lost_log_records=0) == Stats(processes=1)
    first, second = serve(app), serve(app)
    for server in (first, second, second):
        clients.websocket(server, "/echo")
        client = clients.connect(server)
        client.send(get("/nothing"))
        client.answer()
    shorter = second.stats().uptime
    stats = app.stats()
    assert (stats.websockets, stats.refused, stats.loops) == (3, {404: 3}, 2)
    assert stats.uptime >= shorter
    first.stop(drain=0)
    assert (app.stats().websockets, app.stats().refused) == (2, {404: 2})
    third = serve(app)
    assert app.stats().loops == 2
    assert first.stats().accepted == 2
    third.stop(drain=0)


def test_an_app_forgets_a_stopped_server_at_the_next_start() -> None:
    app = websocket_app(generator_echo)
    first = app.start("127.0.0.1")
    first.stop(drain=0)
    forgotten = weakref.ref(first)
    del first
    with app.start("127.0.0.1"):
        gc.collect()
        assert forgotten() is None


def samples(text: str) -> dict[str, float]:
    """Return the samples that a Prometheus parser reads; it raises an error for invalid text."""
    return {
        "".join((sample.name, *(f"{{{key}={value}}}" for key, value in sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


def test_metrics_are_served_as_text(serve: Serve, clients: Clients) -> None:
    app = websocket_app(generator_echo)
    app.metrics()
    server = serve(app)
    client = clients.websocket(server, "/echo")
    client.send_messages("one", "two")
    client.expect(2)
    refused = clients.connect(server)
    refused.send(get("/nothing"))
    refused.answer()
    scraper = clients.connect(server)
    scraper.send(get("/metrics"))
    answer = scraper.answer()
    assert answer.headers["Content-Type"] == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    )
    found = samples(answer.body.decode())
    assert found["wsframe_connections{kind=websocket}"] == 1
    assert found["wsframe_connections{kind=event_stream}"] == 0
    assert found["wsframe_messages_total{direction=in}"] == 2
    assert found["wsframe_refused_requests_total{status=404}"] == 1
    assert found["wsframe_traffic_bytes_total{direction=in}"] > 100
    assert found["wsframe_uptime_seconds"] > 0
    assert found["wsframe_threads"] == server.stats().threads


def test_every_statistic_is_a_metric() -> None:
    shown = {name for metric in METRICS for name in metric.samples.values()}
    assert shown == {field.name for field in dataclasses.fields(Stats)}


def test_metrics_are_served_only_on_the_registered_path(serve: Serve, clients: Clients) -> None:
    app = websocket_app(generator_echo)
    app.metrics("/numbers")
    with pytest.raises(ValueError, match="already has a route"):
        app.metrics("/numbers")
    server = serve(app)
    answers = {}
    for method, path in (("GET", "/metrics"), ("HEAD", "/numbers"), ("POST", "/numbers")):
        client = clients.connect(server)
        client.send(get(path, method=method))
        answers[path, method] = client.answer()
    assert answers["/metrics", "GET"].status == 404
    assert answers["/numbers", "POST"].status == 405
    assert (answers["/numbers", "HEAD"].status, answers["/numbers", "HEAD"].body) == (200, b"")
