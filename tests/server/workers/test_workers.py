"""Workers that share one port: ended workers are replaced, and all stop together."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.server.stopping import GOING_AWAY, next_closed
from tests.support.clients import StreamClient, WebSocketClient
from tests.support.log import ServerLog
from tests.support.processes import ServerProcess, run
from tests.support.waiting import wait_until
from wsframe.server import App
from wsframe.server.timing import Timing
from wsframe.server.workers import supervisor

pytestmark = pytest.mark.skipif(
    sys.platform != "linux",
    reason="only Linux balances connections among listeners of a port",
)

SIGNALS = [signal.SIGTERM, signal.SIGINT]
STOPPING = re.compile("Shutting down; press Ctrl-C again to force")

PROGRAM = """
import atexit, os, signal, sys, threading, time
from pathlib import Path
from queue import Queue
from wsframe.server import App
from wsframe.server.timing import Timing

app = App()
ticks = Queue()
app.sse("/time", source=ticks)

def say(text):
    os.write(1, f"{text}\\n".encode())  # one write, so that lines of processes do not mix

atexit.register(say, "the end of the parent")

@app.on_start
def start():
    assert threading.current_thread() is threading.main_thread()
    if Path("broken").exists():
        how = Path("broken").read_text()
        if how == "once":
            Path("broken").unlink()
        if how == "silently":
            os._exit(3)
        raise ValueError("it is broken")
    threading.Thread(target=tick, daemon=True).start()
    signal.signal(signal.SIGUSR1, fail)
    if Path("sticky").exists():
        atexit.register(time.sleep, 60)
    if Path("unclean").exists():
        atexit.register(os._exit, 3)
    if Path("signalling").exists():
        atexit.register(setattr, sys, "stdout", Signalling())
    atexit.register(say, "the end of a worker")

def fail(number, frame):
    raise LookupError("in the main thread")

class Signalling:
    def flush(self):  # the last step of a worker, after its exit functions
        say("flush")
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)

def tick():
    while True:
        ticks.put(str(os.getpid()))
        time.sleep(0.05)

@app.websocket("/pid")
def pid(ws):
    ws.send(str(os.getpid()))
    while True:
        ws.send((yield))

@app.websocket("/stuck")
def stuck(ws):
    ws.send(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    for name in ("worker_grace", "restart_min_backoff"):
        setattr(Timing, name, float(os.environ.get(name, getattr(Timing, name))))
    app.run("127.0.0.1", 0, workers=int(sys.argv[1]), drain=float(sys.argv[2]))
    say("run returned")
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


def serve(directory: Path, count: int = 2, drain: float = 60) -> ServerProcess:
    """Start the program."""
    return ServerProcess("program.py", str(count), str(drain), directory=directory)


def fail(directory: Path) -> tuple[int, str]:
    """Start the program; wait until it gives up, and return its exit code and errors."""
    result = run([sys.executable, "program.py", "2", "60"], directory)
    assert "Serving" not in result.stdout
    return result.returncode, result.stderr


class Crowd:
    """A client of each worker, by process id."""

    def __init__(self, process: ServerProcess, stack: ExitStack) -> None:
        self._process = process
        self._stack = stack
        self.clients: dict[int, WebSocketClient] = {}

    def gather(self, count: int) -> None:
        """Connect until this number of workers have a client."""
        while len(self.clients) < count:
            client = WebSocketClient(self._process.port, "/pid")
            self._stack.callback(client.close)
            pid = int(str(client.next_event()))
            if pid in self.clients:
                client.leave()
            else:
                self.clients[pid] = client

    def expect_close(self) -> None:
        """Check that the server closes all clients."""
        for client in self.clients.values():
            assert client.expect_close() == GOING_AWAY


def stuck_client(process: ServerProcess, stack: ExitStack) -> tuple[WebSocketClient, int]:
    """Return a client whose handler blocks, and the process id of its worker."""
    client = WebSocketClient(process.port, "/stuck")
    stack.callback(client.close)
    return client, int(str(client.next_event()))


@pytest.mark.slow
def test_workers_share_the_port(directory: Path, stack: ExitStack) -> None:
    process = stack.enter_context(serve(directory, 3))
    crowd = Crowd(process, stack)
    crowd.gather(3)
    assert process.pid not in crowd.clients


@pytest.mark.slow
def test_every_worker_calls_the_functions_of_on_start(directory: Path, stack: ExitStack) -> None:
    process = stack.enter_context(serve(directory))
    crowd = Crowd(process, stack)
    crowd.gather(2)
    received: set[int] = set()
    while len(received) < 2:
        stream = StreamClient(process.port, "/time")
        first, *others = stream.expect(3)
        stream.close()
        assert set(others) == {first}  # its worker's own queue
        received.add(int(first))
    assert received == set(crowd.clients)


# The end ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("to", ["parent", "group"])
def test_a_signal_shuts_down_all_workers_gracefully(
    directory: Path, stack: ExitStack, number: signal.Signals, to: str
) -> None:
    process = stack.enter_context(serve(directory))
    crowd = Crowd(process, stack)
    crowd.gather(2)
    (process.signal if to == "parent" else process.signal_all)(number)
    process.expect(STOPPING)
    crowd.expect_close()
    code, output = process.wait()
    assert code == 0, output
    # Each process runs only its own exit functions; those from before the fork run once.
    assert sorted(output.splitlines()) == [
        "run returned",
        "the end of a worker",
        "the end of a worker",
        "the end of the parent",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_forces_the_end(
    directory: Path, stack: ExitStack, number: signal.Signals
) -> None:
    process = stack.enter_context(serve(directory))
    client, _ = stuck_client(process, stack)
    process.signal_all(number)
    process.expect(STOPPING)
    assert client.next_event() == GOING_AWAY
    process.signal_all(number)
    code, output = process.wait()
    assert code == 1
    assert "Traceback" not in output
    assert "run returned" not in output


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_blocked_handler_does_not_keep_a_worker_alive(directory: Path, stack: ExitStack) -> None:
    process = stack.enter_context(serve(directory, drain=0.3))
    stuck_client(process, stack)
    process.signal(signal.SIGTERM)
    code, output = process.wait()
    assert code == 0, output
    assert "wsframe-handler /stuck did not stop in time; leaving it running" in output
    assert "run returned" in output


@pytest.mark.slow
def test_a_worker_that_does_not_end_is_killed(
    directory: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("worker_grace", "0.1")
    (directory / "sticky").touch()
    process = stack.enter_context(serve(directory, 1, drain=2))
    process.signal(signal.SIGTERM)
    code, output = process.wait()
    assert code == 1
    assert "killing 1 workers that did not stop within" in output


@pytest.mark.slow
def test_a_worker_that_fails_while_it_stops_is_logged(directory: Path, stack: ExitStack) -> None:
    (directory / "unclean").touch()
    process = stack.enter_context(serve(directory, 1))
    process.signal(signal.SIGTERM)
    code, output = process.wait()
    assert code == 1
    assert re.search("worker [0-9]+ did not shut down cleanly: exit code 3", output)


@pytest.mark.slow
@pytest.mark.unmeasured
def test_signals_that_arrive_late_do_not_change_the_exit_code_of_a_worker(
    directory: Path, stack: ExitStack
) -> None:
    (directory / "signalling").touch()
    process = stack.enter_context(serve(directory, 1))
    process.signal(signal.SIGTERM)
    process.expect(re.compile("flush"))
    code, output = process.wait()
    assert code == 0, output
    assert "did not shut down cleanly" not in output


def test_workers_do_not_outlive_their_parent(directory: Path, stack: ExitStack) -> None:
    process = stack.enter_context(serve(directory))
    crowd = Crowd(process, stack)
    crowd.gather(2)
    process.signal(signal.SIGKILL)
    crowd.expect_close()
    code, _ = process.wait()
    assert code == -signal.SIGKILL


# Workers that die ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize(
    ("number", "how"),
    [(signal.SIGKILL, r"signal 9 \(Killed\)"), (signal.SIGTERM, "exit code 0")],
)
def test_a_worker_that_ends_unexpectedly_is_replaced(
    directory: Path, stack: ExitStack, number: signal.Signals, how: str
) -> None:
    process = stack.enter_context(serve(directory))
    crowd = Crowd(process, stack)
    crowd.gather(2)
    pid, client = crowd.clients.popitem()
    os.kill(pid, number)
    if number == signal.SIGKILL:
        with pytest.raises((EOFError, ConnectionResetError)):
            client.next_event()
    else:
        assert client.expect_close() == GOING_AWAY
    process.expect(re.compile(f"replacing worker {pid}, which ended unexpectedly: {how}"))
    crowd.gather(2)
    assert pid not in crowd.clients
    for other in crowd.clients.values():
        other.send_messages("x")
        assert other.next_event() == "x"
    process.signal(signal.SIGTERM)
    crowd.expect_close()
    assert process.wait()[0] == 0


@pytest.mark.slow
def test_an_error_in_the_main_thread_of_a_worker_is_logged_and_ends_it(
    directory: Path, stack: ExitStack
) -> None:
    process = stack.enter_context(serve(directory))
    crowd = Crowd(process, stack)
    crowd.gather(2)
    pid, client = crowd.clients.popitem()
    os.kill(pid, signal.SIGUSR1)
    process.expect(re.compile(f"worker {pid} failed"))
    process.expect(re.compile("LookupError: in the main thread"))
    process.expect(re.compile(f"replacing worker {pid}, which ended unexpectedly: exit code 1"))
    with pytest.raises((EOFError, ConnectionResetError)):
        client.next_event()
    crowd.gather(2)
    process.signal(signal.SIGTERM)
    crowd.expect_close()
    assert process.wait()[0] == 0


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_failed_replacement_is_tried_again(
    directory: Path, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("restart_min_backoff", "0")
    process = stack.enter_context(serve(directory))
    crowd = Crowd(process, stack)
    for number in range(supervisor.MAX_FAILURES):  # in total, but not in a row
        crowd.gather(2)
        (directory / "broken").write_text("once", encoding="utf-8")
        pid, _ = crowd.clients.popitem()
        os.kill(pid, signal.SIGKILL)
        if number == 0:  # the same reason is logged once
            process.expect(re.compile("a worker failed to start: ValueError: it is broken"))
            process.expect(re.compile("Traceback"))
        wait_until(lambda: not (directory / "broken").exists(), "a replacement was started")
    crowd.gather(2)


@pytest.mark.slow
def test_all_workers_stop_when_no_replacement_can_start(directory: Path, stack: ExitStack) -> None:
    process = stack.enter_context(serve(directory))
    crowd = Crowd(process, stack)
    crowd.gather(2)
    (directory / "broken").write_text("always", encoding="utf-8")
    pid, _ = crowd.clients.popitem()
    os.kill(pid, signal.SIGKILL)
    crowd.expect_close()
    code, output = process.wait()
    assert code == 1
    # in the message, in a line of the source, and at the end of the traceback
    assert output.count("it is broken") == 3
    assert "giving up: 5 workers in a row failed to start" in output
    assert "run returned" not in output


@pytest.mark.slow
def test_only_a_second_signal_forces_the_end_after_giving_up(
    directory: Path, stack: ExitStack
) -> None:
    process = stack.enter_context(serve(directory))
    crowd = Crowd(process, stack)
    crowd.gather(2)
    stuck, stuck_pid = stuck_client(process, stack)
    (pid,) = set(crowd.clients) - {stuck_pid}
    (directory / "broken").write_text("always", encoding="utf-8")
    os.kill(pid, signal.SIGKILL)
    # Once the supervisor has given up, the other worker closes its clients one after another.
    assert next_closed([crowd.clients[stuck_pid], stuck]).next_event() == GOING_AWAY
    process.signal(signal.SIGTERM)
    process.expect(STOPPING)
    process.signal(signal.SIGTERM)
    code, output = process.wait()
    assert code == 1
    assert "giving up: 5 workers in a row failed to start" in output


def test_the_reason_of_a_failed_first_start_is_printed_once_and_at_once(directory: Path) -> None:
    (directory / "broken").write_text("always", encoding="utf-8")
    code, errors = fail(directory)
    assert code == 1
    assert errors.count("Traceback") == 1
    assert errors.startswith("Traceback")
    assert errors.splitlines()[-1] == "ValueError: it is broken"


@pytest.mark.slow
def test_supervisor_gives_up_after_five_failed_starts(directory: Path) -> None:
    (directory / "broken").write_text("silently", encoding="utf-8")
    begin = time.monotonic()
    code, errors = fail(directory)
    assert code == 1
    lines = errors.splitlines()
    assert len(lines) == 6
    assert all("a worker failed to start" in line and "exit code 3" in line for line in lines[:5])
    assert lines[5] == "giving up: 5 workers in a row failed to start"
    assert time.monotonic() - begin >= 0.1 + 0.4  # the pauses after the first and the third


@pytest.mark.parametrize(
    ("owner", "function", "timeout"),
    [(os, "fork", 60), (supervisor, "channel_pair", 60), (supervisor, "channel_pair", 0)],
)
def test_a_failed_fork_counts_as_a_failed_start(
    log: ServerLog, monkeypatch: pytest.MonkeyPatch, owner: object, function: str, timeout: float
) -> None:
    def fail() -> object:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(owner, function, fail)
    monkeypatch.setattr(Timing, "restart_min_backoff", 0)
    before = [signal.getsignal(number) for number in (*SIGNALS, signal.SIGCHLD)]
    with pytest.raises(SystemExit, match="5 workers in a row failed to start"):
        App().run("127.0.0.1", 0, workers=1, worker_timeout=timeout)
    log.expect("a worker failed to start: no more processes")
    assert [signal.getsignal(number) for number in (*SIGNALS, signal.SIGCHLD)] == before
    assert signal.set_wakeup_fd(-1) == -1


# Errors at the start ------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_the_port_of_another_server_is_not_shared(shared: bool) -> None:
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            App().run("127.0.0.1", other.getsockname()[1], workers=2)


@pytest.mark.parametrize("name", ["os.fork", "socket.SO_REUSEPORT"])
def test_workers_require_fork_and_so_reuseport(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delattr(name)
    with pytest.raises(OSError, match=r"require os\.fork and SO_REUSEPORT"):
        App().run("127.0.0.1", 0, workers=2)


def test_a_negative_number_of_workers_is_an_error() -> None:
    with pytest.raises(ValueError, match="workers must not be negative"):
        App().run("127.0.0.1", 0, workers=-1)


@pytest.mark.parametrize("workers", [0, 2])
def test_run_must_be_called_in_the_main_thread(workers: int) -> None:
    raised: list[BaseException] = []

    def serve() -> None:
        try:
            App().run("127.0.0.1", 0, workers=workers)
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    assert "App.run must be called in the main thread" in str(raised[0])
