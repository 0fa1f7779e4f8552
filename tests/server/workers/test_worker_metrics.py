"""The metrics of several workers: one answer for the service, whichever of them is asked."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import inf
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.clients import Client, WebSocketClient, get
from tests.support.clock import ManualClock
from tests.support.processes import ServerProcess
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import Stats
from wsframe.server.reports.stats import METRICS
from wsframe.server.workers.channel import Channel, channel_pair, decode_stats, encode_stats
from wsframe.server.workers.collector import Collector, Participant
from wsframe.server.workers.worker import MAX_WAITING, SupervisorLink

WAIT = 1.0


# How numbers are gathered ------------------------------------------------------------------------


class Workers:
    """Workers of a census that answer when the test has them answer."""

    def __init__(self, count: int) -> None:
        self.clock = ManualClock()
        self.collector = Collector(self.clock, WAIT)
        self.asked: list[int] = []
        self.answers: list[tuple[int, Stats]] = []
        self.all = [self.add(number) for number in range(count)]

    def add(self, number: int) -> Participant:
        """A worker begins to serve."""

        def answer(stats: Stats) -> None:
            self.answers.append((number, stats))

        worker = Participant(lambda: self.asked.append(number), answer)
        self.collector.add(worker)
        return worker

    def ask(self, number: int) -> None:
        self.collector.request(self.all[number])

    def report(self, number: int, accepted: int, websockets: int = 0) -> None:
        stats = Stats(accepted=accepted, websockets=websockets, refused={404: accepted})
        self.collector.receive(self.all[number], stats)

    def answer(self) -> tuple[int, int, int, int]:
        """Who has an answer, of how many connections, and of how many processes."""
        ((number, stats),) = self.answers
        self.answers.clear()
        return number, stats.accepted, stats.processes, stats.missing_processes


def test_the_answer_is_the_sum_of_all() -> None:
    workers = Workers(3)
    workers.ask(1)
    assert workers.asked == [0, 1, 2]
    for number in range(3):
        assert not workers.answers
        workers.report(number, 10**number)
    assert workers.answers[0][1].refused == {404: 111}
    assert workers.answer() == (1, 111, 3, 0)
    assert workers.collector.due == inf


def test_who_asks_during_a_round_has_an_answer_of_the_next() -> None:
    workers = Workers(2)
    workers.ask(0)
    workers.ask(1)
    workers.report(0, 1)
    workers.report(1, 1)
    assert workers.answer() == (0, 2, 2, 0)
    assert workers.asked == [0, 1, 0, 1]
    workers.report(0, 2)
    workers.report(1, 2)
    assert workers.answer() == (1, 4, 2, 0)


def test_a_worker_that_hangs_is_missing_and_its_last_numbers_stand_for_it() -> None:
    workers = Workers(2)
    workers.ask(0)
    workers.report(0, 1)
    workers.report(1, 5)
    assert workers.answer() == (0, 6, 2, 0)
    workers.ask(0)
    workers.report(0, 2)
    workers.collector.check()
    assert not workers.answers
    workers.clock.now += WAIT
    workers.collector.check()
    assert workers.answer() == (0, 7, 1, 1)
    # It is not waited for again, nor asked again, until it has answered.
    workers.ask(0)
    workers.report(0, 3)
    assert workers.answer() == (0, 8, 1, 1)
    assert workers.asked == [0, 1, 0, 1, 0]
    workers.report(1, 9)
    workers.ask(0)
    workers.report(0, 4)
    workers.report(1, 9)
    assert workers.answer() == (0, 13, 2, 0)


def test_counters_of_a_worker_that_has_ended_are_kept_and_its_gauges_are_not() -> None:
    workers = Workers(2)
    workers.ask(0)
    workers.report(0, 1, websockets=1)
    workers.report(1, 5, websockets=5)
    assert workers.answers.pop()[1].websockets == 6
    workers.ask(0)
    workers.report(0, 1, websockets=1)
    workers.collector.remove(workers.all[1])
    assert workers.answers[0][1].websockets == 1
    assert workers.answer() == (0, 6, 1, 0)
    workers.all[1] = workers.add(1)
    workers.ask(1)
    workers.report(0, 1)
    workers.report(1, 2)
    assert workers.answer() == (1, 8, 2, 0)


def test_a_worker_that_ends_while_it_asks_has_no_answer() -> None:
    workers = Workers(3)
    workers.ask(0)
    workers.ask(1)
    for number in (0, 1):
        workers.collector.remove(workers.all[number])
    workers.report(2, 1)
    assert not workers.answers
    workers.ask(2)
    workers.report(2, 1)
    assert workers.answer() == (2, 1, 1, 0)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """The supervisor's end of a channel, and the worker's."""
    ours, theirs = channel_pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_of_any_length_arrive_and_the_supervisor_never_waits(
    ends: tuple[Channel, Channel],
) -> None:
    ours, theirs = ends
    texts = ["x" * size for size in (0, 1, 1 << 16, 1 << 21)]
    for text in texts:
        ours.send("text", text)
    assert ours.has_unsent
    received: list[object] = []
    while len(received) < len(texts):
        received += [content for _, content in theirs.receive()]
        ours.flush()
    assert received == texts
    theirs.send("one")
    theirs.send("two", [1, None])
    theirs.close()
    assert ours.receive_all() == [("one", None), ("two", [1, None])]
    assert ours.closed
    ours.send("lost")
    assert not ours.has_unsent


def test_statistics_survive_the_way() -> None:
    stats = Stats(uptime=1.5, accepted=3, refused={404: 2}, refused_for={"path": 2})
    assert decode_stats(encode_stats(stats)) == stats


def test_a_worker_whose_supervisor_hangs_keeps_few_who_ask_and_all_are_told_of_its_end(
    ends: tuple[Channel, Channel],
) -> None:
    ours, theirs = ends
    ended = threading.Event()
    link = SupervisorLink(theirs, ended.set)
    link.begin()
    told: list[bytes | None] = []
    for _ in range(MAX_WAITING + 1):
        link.request(told.append)
    assert not told
    link.request(told.append)
    assert told == [None]
    ours.close()
    assert ended.wait(TIMEOUT)
    wait_until(lambda: len(told) == MAX_WAITING + 2, "all are told")
    assert set(told) == {None}


# A service ---------------------------------------------------------------------------------------

PROGRAM = """
import ctypes, os, sys, time
from wsframe.server import App
from wsframe.server.timing import Timing

app = App(timing=Timing(metrics_timeout=2))
app.metrics()
app.topic("news")

@app.websocket("/echo")
def echo(ws):
    ws.send(str(os.getpid()))
    while True:
        ws.send((yield))

@app.websocket("/hang")
def hang(ws):
    ws.send(str(os.getpid()))
    ws.ping()
    yield
    # C code that keeps the GIL: no thread of the process runs any more.
    ctypes.PyDLL(None).sleep(600)

@app.websocket("/block")
def block(ws):
    ws.send(str(os.getpid()))
    yield
    time.sleep(600)

if __name__ == "__main__":
    app.run("127.0.0.1", 0, workers=int(sys.argv[1]), drain=2, worker_timeout=float(sys.argv[2]))
"""

GAUGES = {metric.name for metric in METRICS if metric.kind == "gauge"}


class Service:
    """The program, and its clients."""

    def __init__(self, process: ServerProcess, stack: ExitStack) -> None:
        self.process = process
        self._stack = stack

    def websocket(self, path: str) -> tuple[WebSocketClient, int]:
        """A WebSocket, and the process that has it."""
        client = WebSocketClient(self.process.port, path)
        self._stack.callback(client.close)
        return client, int(str(client.next_event()))

    def metrics(self) -> dict[str, float]:
        """The samples of an answer, by name and labels."""
        client = Client(self.process.port)
        self._stack.callback(client.close)
        client.send(get("/metrics"))
        answer = client.answer()
        assert answer.status == 200
        parse: Any = text_string_to_metric_families
        families = parse(answer.body.decode())
        return {
            sample.name + "".join(sorted(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts the program."""
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    with ExitStack() as stack:

        def start(workers: int, timeout: float = 0.0) -> Service:
            process = ServerProcess("program.py", str(workers), str(timeout), directory=tmp_path)
            return Service(stack.enter_context(process), stack)

        yield start


def test_every_worker_answers_for_all(serve: Callable[..., Service]) -> None:
    service = serve(3)
    clients = [service.websocket("/echo") for _ in range(12)]
    for number in range(12):  # whichever worker each of them meets
        metrics = service.metrics()
        assert metrics["wsframe_processesanswering"] == 3
        assert metrics["wsframe_processesmissing"] == 0
        assert metrics["wsframe_connectionswebsocket"] == 12
        assert metrics["wsframe_messages_totalout"] == 12
        assert metrics["wsframe_accepted_connections_total"] == 12 + number + 1
    for client, _ in clients:
        client.leave()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_counter_decreases_when_a_worker_is_replaced(
    serve: Callable[..., Service], number: signal.Signals
) -> None:
    service = serve(2)
    clients = [service.websocket("/echo") for _ in range(8)]
    before = service.metrics()
    os.kill(clients[0][1], number)
    service.process.expect(re.compile("which ended unexpectedly"))
    wait_until(lambda: service.metrics()["wsframe_processesanswering"] == 2, "it is replaced")
    after = service.metrics()
    for name, value in before.items():
        if not any(name.startswith(gauge) for gauge in GAUGES):
            assert after[name] >= value, name
    lost = [client for client, pid in clients if pid == clients[0][1]]
    assert after["wsframe_connectionswebsocket"] == 8 - len(lost)
    assert after["wsframe_replaced_processes_total"] == 1


def test_a_supervisor_that_hangs_leaves_no_request_without_an_answer(
    serve: Callable[..., Service],
) -> None:
    service = serve(2)
    service.process.signal(signal.SIGSTOP)
    try:
        client = Client(service.process.port)
        client.send(get("/metrics"))
        answer = client.answer()
        client.close()
        assert answer.status == 503
        assert answer.headers["Retry-After"]
    finally:
        service.process.signal(signal.SIGCONT)
    wait_until(lambda: service.metrics()["wsframe_processesanswering"] == 2, "it answers again")


def test_a_worker_that_hangs_is_reported_as_missing(serve: Callable[..., Service]) -> None:
    service = serve(2)
    clients = [service.websocket("/echo") for _ in range(4)]
    service.metrics()
    hung = clients[0][1]
    os.kill(hung, signal.SIGSTOP)
    try:
        # Connections are dealt to the one that hangs as well; those are no answer.
        answered = 0
        while answered < 2:
            client = Client(service.process.port)
            client.sock.settimeout(2)
            try:
                client.send(get("/metrics"))
                body = client.answer().body.decode()
            except TimeoutError:
                continue
            finally:
                client.close()
            answered += 1
            assert 'wsframe_processes{state="answering"} 1' in body
            assert 'wsframe_processes{state="missing"} 1' in body
            assert 'wsframe_connections{kind="websocket"} 4' in body
    finally:
        os.kill(hung, signal.SIGCONT)
    wait_until(lambda: service.metrics()["wsframe_processesanswering"] == 2, "it answers again")
