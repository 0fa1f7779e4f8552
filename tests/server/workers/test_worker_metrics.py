"""The metrics of several workers: each worker answers for the whole service."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from math import inf
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.clients import Client, WebSocketClient, get
from tests.support.processes import ServerProcess
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import Stats
from wsframe.server.reports.stats import METRICS
from wsframe.server.workers.channel import Channel, channel_pair, decode_stats, encode_stats
from wsframe.server.workers.collector import Collector, Participant
from wsframe.server.workers.worker import MAX_WAITING, SupervisorLink
from wsframe.testing import ManualClock

WAIT = 1.0


# Collecting the numbers ---------------------------------------------------------------------------


class Workers:
    """Workers whose answers to the collector are controlled by the test."""

    def __init__(self, count: int) -> None:
        self.clock = ManualClock()
        self.collector = Collector(self.clock, WAIT)
        self.requested: list[int] = []
        self.answers: list[tuple[int, Stats]] = []
        self.all = [self.add(number) for number in range(count)]

    def add(self, number: int) -> Participant:
        """Add a worker that has started."""

        def answer(stats: Stats) -> None:
            self.answers.append((number, stats))

        worker = Participant(lambda: self.requested.append(number), answer)
        self.collector.add(worker)
        return worker

    def request(self, number: int) -> None:
        self.collector.request(self.all[number])

    def report(self, number: int, accepted: int, websockets: int = 0) -> None:
        stats = Stats(accepted=accepted, websockets=websockets, refused={404: accepted})
        self.collector.receive(self.all[number], stats)

    def answer(self) -> tuple[int, int, int, int]:
        """Return the answered worker, and the connections and processes of its answer."""
        ((number, stats),) = self.answers
        self.answers.clear()
        return number, stats.accepted, stats.processes, stats.missing_processes


def test_the_answer_is_the_sum_over_all_workers() -> None:
    workers = Workers(3)
    workers.request(1)
    assert workers.requested == [0, 1, 2]
    for number in range(3):
        assert not workers.answers
        workers.report(number, 10**number)
    assert workers.answers[0][1].refused == {404: 111}
    assert workers.answer() == (1, 111, 3, 0)
    assert workers.collector.due == inf


def test_a_request_during_a_round_is_answered_by_the_next_round() -> None:
    workers = Workers(2)
    workers.request(0)
    workers.request(1)
    workers.report(0, 1)
    workers.report(1, 1)
    assert workers.answer() == (0, 2, 2, 0)
    assert workers.requested == [0, 1, 0, 1]
    workers.report(0, 2)
    workers.report(1, 2)
    assert workers.answer() == (1, 4, 2, 0)


def test_a_hung_worker_counts_as_missing_with_its_last_numbers() -> None:
    workers = Workers(2)
    workers.request(0)
    workers.report(0, 1)
    workers.report(1, 5)
    assert workers.answer() == (0, 6, 2, 0)
    workers.request(0)
    workers.report(0, 2)
    workers.collector.check()
    assert not workers.answers
    workers.clock.now += WAIT
    workers.collector.check()
    assert workers.answer() == (0, 7, 1, 1)
    # No round waits for it or sends it a request until it has answered.
    workers.request(0)
    workers.report(0, 3)
    assert workers.answer() == (0, 8, 1, 1)
    assert workers.requested == [0, 1, 0, 1, 0]
    workers.report(1, 9)
    workers.request(0)
    workers.report(0, 4)
    workers.report(1, 9)
    assert workers.answer() == (0, 13, 2, 0)


def test_the_counters_of_an_ended_worker_are_kept_but_not_its_gauges() -> None:
    workers = Workers(2)
    workers.request(0)
    workers.report(0, 1, websockets=1)
    workers.report(1, 5, websockets=5)
    assert workers.answers.pop()[1].websockets == 6
    workers.request(0)
    workers.report(0, 1, websockets=1)
    workers.collector.remove(workers.all[1])
    assert workers.answers[0][1].websockets == 1
    assert workers.answer() == (0, 6, 1, 0)
    workers.all[1] = workers.add(1)
    workers.request(1)
    workers.report(0, 1)
    workers.report(1, 2)
    assert workers.answer() == (1, 8, 2, 0)


def test_a_worker_that_ends_while_it_waits_gets_no_answer() -> None:
    workers = Workers(3)
    workers.request(0)
    workers.request(1)
    for number in (0, 1):
        workers.collector.remove(workers.all[number])
    workers.report(2, 1)
    assert not workers.answers
    workers.request(2)
    workers.report(2, 1)
    assert workers.answer() == (2, 1, 1, 0)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    """The supervisor's end and the worker's end of a channel."""
    ours, theirs = channel_pair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_messages_of_any_length_arrive_and_the_supervisor_never_blocks(
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


def test_encoded_statistics_are_decoded_unchanged() -> None:
    stats = Stats(uptime=1.5, accepted=3, refused={404: 2}, refused_for={"path": 2})
    assert decode_stats(encode_stats(stats)) == stats


def test_a_worker_limits_its_waiting_requests_and_answers_none_when_the_supervisor_ends(
    ends: tuple[Channel, Channel],
) -> None:
    ours, theirs = ends
    ended = threading.Event()
    link = SupervisorLink(theirs, ended.set)
    link.begin()
    answers: list[bytes | None] = []
    for _ in range(MAX_WAITING + 1):
        link.request(answers.append)
    assert not answers
    link.request(answers.append)
    assert answers == [None]
    ours.close()
    assert ended.wait(TIMEOUT)
    wait_until(lambda: len(answers) == MAX_WAITING + 2, "all requests are answered")
    assert set(answers) == {None}


# A service ----------------------------------------------------------------------------------------

PROGRAM = """
import ctypes, os, sys, tempfile, time

def fail(*arguments):
    raise OSError("no place for a file")

if "no-memory" in sys.argv:
    os.memfd_create = fail
if "no-disk" in sys.argv:
    tempfile.TemporaryFile = fail

from wsframe.server import App
from wsframe.server.timing import Timing

impatient = "impatient" in sys.argv
Timing.stats_timeout = 1 if impatient else 60
app = App(timing=Timing(report_timeout=2 if impatient else 60))
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
    # C code that keeps the GIL, so that no other thread of the process runs.
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
    """The program and its clients."""

    def __init__(self, process: ServerProcess, stack: ExitStack) -> None:
        self.process = process
        self._stack = stack

    def stop(self) -> None:
        """Stop the program, which must end cleanly."""
        self.process.signal(signal.SIGTERM)
        code, output = self.process.wait()
        assert code == 0, output

    def websocket(self, path: str) -> tuple[WebSocketClient, int]:
        """Return a WebSocket and the process id of its worker."""
        client = WebSocketClient(self.process.port, path)
        self._stack.callback(client.close)
        return client, int(str(client.next_event()))

    def metrics(self) -> dict[str, float]:
        """Return the samples of a response, by name and labels."""
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

    def wait_until_all_answer(self, workers: int) -> None:
        """Wait until this number of workers answer; one that is killed resets its connections."""

        def all_answer() -> bool:
            with suppress(ConnectionError, ValueError):
                return self.metrics()["wsframe_processesanswering"] == workers
            return False

        wait_until(all_answer, "all workers answer")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Return a function that starts the program."""
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    with ExitStack() as stack:

        def start(workers: int, timeout: float = 0.0, *options: str) -> Service:
            arguments = ("program.py", str(workers), str(timeout), *options)
            process = stack.enter_context(ServerProcess(*arguments, directory=tmp_path))
            service = Service(process, stack)
            stack.callback(service.stop)
            return service

        yield start


@pytest.mark.slow
@pytest.mark.unmeasured
def test_every_worker_answers_for_all(serve: Callable[..., Service]) -> None:
    service = serve(3)
    clients = [service.websocket("/echo") for _ in range(12)]
    for number in range(12):  # each may reach another worker
        metrics = service.metrics()
        assert metrics["wsframe_processesanswering"] == 3
        assert metrics["wsframe_processesmissing"] == 0
        assert metrics["wsframe_connectionswebsocket"] == 12
        assert metrics["wsframe_messages_totalout"] == 12
        assert metrics["wsframe_accepted_connections_total"] == 12 + number + 1
    for client, _ in clients:
        client.leave()


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_counter_decreases_when_a_worker_is_replaced(
    serve: Callable[..., Service], number: signal.Signals
) -> None:
    service = serve(2)
    clients = [service.websocket("/echo") for _ in range(8)]
    before = service.metrics()
    os.kill(clients[0][1], number)
    service.process.expect(re.compile("which ended unexpectedly"))
    service.wait_until_all_answer(2)
    after = service.metrics()
    for name, value in before.items():
        if not any(name.startswith(gauge) for gauge in GAUGES):
            assert after[name] >= value, name
    lost = [client for client, pid in clients if pid == clients[0][1]]
    assert after["wsframe_connectionswebsocket"] == 8 - len(lost)
    assert after["wsframe_replaced_processes_total"] == 1


@pytest.mark.slow
def test_requests_for_metrics_are_answered_with_503_while_the_supervisor_hangs(
    serve: Callable[..., Service],
) -> None:
    service = serve(2, 0, "impatient")
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
    service.wait_until_all_answer(2)


@pytest.mark.slow
def test_a_worker_that_hangs_is_reported_as_missing(serve: Callable[..., Service]) -> None:
    service = serve(2, 0, "impatient")
    clients = [service.websocket("/echo") for _ in range(4)]
    service.metrics()
    hung = clients[0][1]
    os.kill(hung, signal.SIGSTOP)
    try:
        # Connections that the hung worker gets are not answered.
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
    service.wait_until_all_answer(2)
