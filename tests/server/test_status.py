"""Notifications of the service manager."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
import time
from math import inf
from pathlib import Path

import pytest

from tests.support.clients import WebSocketClient
from tests.support.manager import FakeManager
from tests.support.processes import COMMAND, ServerProcess
from tests.support.tools import missing_tool
from tests.support.waiting import TIMEOUT
from wsframe.server.status import ServiceManager

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no service managers")

RELOADING = r"RELOADING=1\nMONOTONIC_USEC=[0-9]+"


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_each_state_is_one_notification(tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "n") if kind == "path" else f"@wsframe-{os.getpid()}"
    with FakeManager(address) as fake:
        manager = ServiceManager({"NOTIFY_SOCKET": address})
        manager.ready()
        manager.reloading()
        manager.alive()
        manager.stopping()
        assert fake.receive() == "READY=1"
        reloading = fake.receive()
        assert re.fullmatch(RELOADING, reloading)
        age = time.monotonic() - int(reloading.rpartition("=")[2]) / 1e6
        assert 0 <= age < TIMEOUT
        assert fake.receive() == "WATCHDOG=1"
        assert fake.receive() == "STOPPING=1"
    manager.ready()  # although it has ended


def test_only_a_supervised_process_reports_its_progress() -> None:
    manager = {"NOTIFY_SOCKET": "@unused"}  # nothing is sent to this address
    mine, other = str(os.getpid()), str(os.getppid())
    for variables, interval in [
        ({**manager, "WATCHDOG_USEC": "3000000"}, 1.5),
        ({**manager, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": mine}, 1.5),
        ({**manager, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": other}, inf),
        ({**manager, "WATCHDOG_USEC": "0"}, inf),
        ({**manager, "WATCHDOG_USEC": "soon"}, inf),
        ({"WATCHDOG_USEC": "3000000"}, inf),
        (manager, inf),
    ]:
        assert ServiceManager(variables).interval == interval
    ServiceManager({}).ready()  # without effect


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_server_reports_its_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str
) -> None:
    address = str(tmp_path / "n")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    command = (*COMMAND, "--port", "0", "--workers", workers)
    with FakeManager(address) as manager, ServerProcess(*command) as process:
        manager.expect("READY=1")
        manager.expect("WATCHDOG=1", skip="")
        manager.expect("WATCHDOG=1", skip="")
        process.signal(signal.SIGHUP)
        manager.expect(RELOADING)
        manager.expect("READY=1")
        process.signal(signal.SIGTERM)
        manager.expect("STOPPING=1")
        assert process.wait()[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_systemd_passes_its_socket_to_a_server(workers: str) -> None:
    program = shutil.which("systemd-socket-activate")
    if program is None:
        missing_tool("systemd-socket-activate")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    options = [f"--setenv={name}" for name in os.environ if name.startswith(("PYTHON", "COV"))]
    command = [program, f"--listen=127.0.0.1:{port}", *options, sys.executable, *COMMAND]
    code = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    until = re.compile(f"Listening on 127.0.0.1:{port}")
    with ServerProcess("-c", code, *command, "--workers", workers, until=until) as process:
        # The first client starts the server, and is served by it.
        client = WebSocketClient(port, "/hello")
        process.expect(re.compile(f"Serving on http://127.0.0.1:{port};"))
        assert client.next_event() == "Hello world!"
        client.leave()
        process.signal(signal.SIGTERM)
        assert process.wait()[0] == 0
