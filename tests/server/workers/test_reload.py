"""SIGHUP: new certificates, and new workers in the place of the old ones."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.certificates import Certificates
from tests.support.clients import WebSocketClient
from tests.support.log import ServerLog
from tests.support.processes import COMMAND, ServerProcess
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server.reports.failure import Failure
from wsframe.server.status import ServiceManager, Status
from wsframe.server.workers.channel import channel_pair
from wsframe.server.workers.process import WorkerProcess
from wsframe.server.workers.reload import Reload

pytestmark = pytest.mark.skipif(
    sys.platform != "linux",
    reason="only Linux balances connections among listeners of a port",
)

RELOADED = re.compile(r"^Reloaded\.$")

PROGRAM = """
import os, time
from pathlib import Path
from wsframe.server import App

app = App()
app.page("/", str(os.getpid()))
if Path("broken").exists():
    raise ValueError("it is broken")
if Path("slow").exists():
    os.write(1, b"loading\\n")
    while Path("slow").exists():
        time.sleep(0.01)

@app.websocket("/pid")
def pid(ws):
    ws.send(str(os.getpid()))
    while True:
        ws.send((yield))
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


class Load:
    """A thread that requests a page again and again; a context manager.

    Args:
        connect: returns a new connection.

    Attributes:
        pids: how often each process has answered.
        errors: the requests without an answer.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self.pids: Counter[str] = Counter()
        self.errors: list[str] = []
        self._connect = connect
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._connect() as sock:
                    sock.settimeout(TIMEOUT)
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    answer = b""
                    while data := sock.recv(4096):
                        answer += data
                self.pids[answer.rpartition(b"\r\n\r\n")[2].decode()] += 1
            except OSError as error:
                self.errors.append(repr(error))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["port", "unix"])
def test_workers_are_replaced_and_no_client_is_refused(
    directory: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(directory)
    command = [*COMMAND, "program:app", "--workers=2", "--drain=0.2", "--stop-delay=600"]
    command.append("--port=0" if kind == "port" else "--unix=s")
    until = re.compile(r"Serving on http(?:\+unix://\S+s|://localhost:(?P<port>[0-9]+));")
    process = stack.enter_context(ServerProcess(*command, directory=directory, until=until))

    def connect() -> socket.socket:
        if kind == "port":
            return socket.create_connection(("127.0.0.1", process.port))
        sock = socket.socket(socket.AF_UNIX)
        sock.connect("s")
        return sock

    with Load(connect) as load:
        wait_until(lambda: len(load.pids) == 2, "both workers answer")
        before = set(load.pids)
        process.signal(signal.SIGHUP)
        process.expect(RELOADED)
        wait_until(lambda: len(set(load.pids) - before) == 2, "both new workers answer")
    assert load.errors == []
    assert "" not in load.pids
    for pid in before:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    process.signal(signal.SIGTERM)
    process.expect(re.compile("Shutting down"))
    process.signal(signal.SIGTERM)
    assert process.wait()[0] == 1


@pytest.mark.slow
def test_old_workers_stay_if_a_new_one_does_not_start(directory: Path, stack: ExitStack) -> None:
    command = (*COMMAND, "program:app", "--workers=2", "--port=0", "--drain=0.2")
    process = stack.enter_context(ServerProcess(*command, directory=directory))
    client = WebSocketClient(process.port, "/pid")
    stack.callback(client.close)
    client.next_event()
    (directory / "broken").touch()
    process.signal(signal.SIGHUP)
    problem = "keeping the old workers, because a new one failed to start: ValueError: it is broken"
    process.expect(re.compile(f"ERROR {problem}$"))
    process.expect(re.compile(f"^Not reloaded: {problem}[.]$"))
    client.send_messages("x")
    assert client.next_event() == "x"
    (directory / "broken").unlink()
    process.signal(signal.SIGHUP)
    process.expect(RELOADED)
    assert client.expect_close().code == 1001
    process.signal(signal.SIGTERM)
    assert process.wait()[0] == 0


@pytest.mark.slow
def test_a_worker_that_dies_while_its_successor_starts_has_only_that(
    directory: Path, stack: ExitStack
) -> None:
    command = (*COMMAND, "program:app", "--workers=1", "--port=0")
    process = stack.enter_context(ServerProcess(*command, directory=directory))
    client = WebSocketClient(process.port, "/pid")
    old = int(str(client.next_event()))
    client.leave()
    (directory / "slow").touch()
    process.signal(signal.SIGHUP)
    process.expect(re.compile("^loading"))  # and not "Reloading"
    os.kill(old, signal.SIGKILL)
    process.expect(re.compile(f"replacing worker {old}, which ended unexpectedly"))
    (directory / "slow").unlink()
    process.expect(RELOADED)
    client = WebSocketClient(process.port, "/pid")
    assert client.next_event() != str(old)
    client.leave()
    process.signal(signal.SIGTERM)
    code, output = process.wait()
    assert (code, "loading" in output) == (0, False)


def visit(process: ServerProcess, certificates: Certificates) -> None:
    """Check that the server has a certificate of this authority."""
    client = WebSocketClient(process.port, "/pid", tls=certificates.client)
    client.next_event()
    client.leave()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_new_certificate_is_used_for_new_connections(
    directory: Path, stack: ExitStack, workers: str
) -> None:
    old, new = Certificates(), Certificates()
    old.write(directory)
    files = ("--cert=cert.pem", "--key=key.pem", f"--workers={workers}", "--drain=0.2")
    command = (*COMMAND, "program:app", "--port=0", *files)
    process = stack.enter_context(ServerProcess(*command, directory=directory))
    first = WebSocketClient(process.port, "/pid", tls=old.client)
    stack.callback(first.close)
    first.next_event()
    (directory / "cert.pem").write_text("broken")
    process.signal(signal.SIGHUP)
    problem = "keeping the old certificate, because the new one cannot be used: cert.pem does not "
    process.expect(re.compile(f"ERROR {problem}"))
    outcome = "Not reloaded" if workers == "0" else "Reloaded only in part"
    process.expect(re.compile(f"^{outcome}: {problem}contain a certificate in PEM format[.]$"))
    visit(process, old)
    new.write(directory)
    process.signal(signal.SIGHUP)
    process.expect(RELOADED)
    visit(process, new)
    with pytest.raises(ssl.SSLCertVerificationError):
        WebSocketClient(process.port, "/pid", tls=old.client)
    if workers == "0":
        first.send_messages("x")
        assert first.next_event() == "x"
    process.signal(signal.SIGTERM)
    assert process.wait()[0] == 0


@pytest.mark.slow
def test_a_terminal_that_is_closed_stops_its_server(directory: Path) -> None:
    master, slave = pty.openpty()
    try:
        code = "import os, fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        code += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *COMMAND, "program:app", "--port=0"],
            stdin=slave,
            stdout=subprocess.PIPE,
            cwd=directory,
            text=True,
            start_new_session=True,
        )
    finally:
        os.close(slave)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Serving on ")
        process.send_signal(signal.SIGHUP)  # of the administrator, while the terminal is open
        assert process.stdout.readline() == "Reloading.\n"
        outcome = process.stdout.readline()
        assert outcome.startswith("Not reloaded: SIGHUP replaces workers (workers) and reads ")
        os.close(master)  # the system sends SIGHUP
        assert process.stdout.readline().startswith("Shutting down")
        assert process.wait(TIMEOUT) == 0
    finally:
        process.kill()
        process.communicate()
        with suppress(OSError):
            os.close(master)


# The steps ----------------------------------------------------------------------------------------


class Service:
    """Workers that start, serve and end as a test requires."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.forked: list[WorkerProcess] = []
        self.retired: list[WorkerProcess] = []
        self.error: OSError | None = None
        self.replaced = True
        self.reload = Reload(
            self.fork, self.retire, lambda: self.replaced, Status(ServiceManager({}))
        )

    def fork(self, slot: int) -> WorkerProcess:
        if self.error is not None:
            raise self.error
        ours, theirs = channel_pair()
        self._stack.callback(theirs.close)
        worker = WorkerProcess(len(self.forked), slot, ours, None, 0)
        self._stack.callback(worker.close)
        self.forked.append(worker)
        return worker

    def retire(self, worker: WorkerProcess) -> None:
        worker.retired = True
        self.retired.append(worker)


@pytest.fixture
def service(stack: ExitStack) -> Service:
    return Service(stack)


def test_a_worker_is_retired_when_its_successor_serves(service: Service) -> None:
    old = [service.fork(slot) for slot in range(2)]
    service.reload.begin(old, [])
    for number, worker in enumerate(old):
        service.reload.step()
        service.reload.step()  # while the successor starts
        assert len(service.forked) == 3 + number
        successor = service.forked[-1]
        assert (worker.successor, successor.slot) == (successor, worker.slot)
        assert worker not in service.retired
        successor.started = True
        service.reload.step()
        service.reload.step()  # while the old one ends
        assert service.retired == old[: number + 1]
        worker.ended = True
        assert service.reload.running
    service.reload.step()
    assert not service.reload.running
    assert len(service.forked) == 4


def test_the_reload_ends_when_the_supervisor_has_replaced_a_worker_that_has_ended(
    service: Service, capfd: pytest.CaptureFixture[str]
) -> None:
    old = [service.fork(0)]
    old[0].ended = True
    service.replaced = False
    service.reload.begin(old, [])
    service.reload.step()
    assert (service.reload.running, service.forked) == (True, old)
    assert capfd.readouterr().out == ""
    service.replaced = True
    service.reload.step()
    assert (service.reload.running, service.forked) == (False, old)
    assert capfd.readouterr().out == "Reloaded.\n"


def test_a_failed_fork_ends_the_reload(
    service: Service, log: ServerLog, capfd: pytest.CaptureFixture[str]
) -> None:
    old = [service.fork(slot) for slot in range(2)]
    service.error = OSError(11, "no more processes")
    service.reload.begin(old, [])
    service.reload.step()
    problem = "keeping the old workers, because a new one failed to start: no more processes"
    log.expect(problem)
    assert capfd.readouterr().out == f"Not reloaded: {problem}.\n"
    assert (service.reload.running, service.forked, service.retired) == (False, old, [])


def test_the_reason_of_a_failure_is_printed_in_one_line_of_limited_length(
    service: Service, log: ServerLog, capfd: pytest.CaptureFixture[str]
) -> None:
    service.reload.begin([service.fork(0)], [])
    service.reload.step()
    reason = Failure("ValueError: \x1b[31mtwo\nlines" + "x" * 10_000)
    assert service.reload.successor_failed(service.forked[-1], reason)
    out = capfd.readouterr().out
    problem = "keeping the old workers, because a new one failed to start: ValueError: "
    assert out.startswith(f"Not reloaded: {problem}\\x1b[31mtwo\\nlinesxxx")
    assert re.search(r"x\.\.\.\(\+[0-9]+ characters\)\n$", out)
    assert (len(out.splitlines()), len(out) < 5000) == (1, True)
    log.expect(problem)


def test_workers_that_were_replaced_before_the_failure_are_a_part_of_the_reload(
    service: Service, log: ServerLog, capfd: pytest.CaptureFixture[str]
) -> None:
    old = [service.fork(slot) for slot in range(2)]
    service.reload.begin(old, ["keeping the old certificate"])
    service.reload.step()
    old[0].ended = True
    service.reload.step()
    assert service.reload.successor_failed(
        service.forked[-1], Failure("ValueError: no", "Traceback")
    )
    problem = "keeping 1 of 2 old workers, because a new one failed to start: ValueError: no"
    log.expect(problem)
    out = capfd.readouterr().out
    assert out == f"Reloaded only in part: keeping the old certificate; {problem}.\n"
    service.reload.step()  # it has ended
    assert capfd.readouterr().out == ""


def test_the_supervisor_replaces_a_successor_whose_predecessor_has_ended(service: Service) -> None:
    old = [service.fork(0)]
    service.reload.begin(old, [])
    service.reload.step()
    old[0].ended = True
    assert not service.reload.successor_failed(service.forked[-1], Failure("it is broken"))
