"""The demo, with real clients."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clients import StreamClient, WebSocketClient
from tests.support.processes import COMMAND, ServerProcess
from tests.support.tools import missing_tool
from tests.support.waiting import TIMEOUT
from wsframe import Close


def websocat() -> str:
    """Return the program websocat of the package with this name."""
    path = Path(sys.executable).with_name("websocat")
    found = shutil.which(path) or shutil.which("websocat")
    if found is None:
        missing_tool("websocat")
    return found


def test_websocat_receives_the_greeting() -> None:
    program = websocat()
    with ServerProcess(*COMMAND, "--port", "0") as process:
        url = f"ws://localhost:{process.port}/hello"
        talk = subprocess.Popen([program, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert talk.stdout is not None
            assert talk.stdout.readline() == b"Hello world!\n"
        finally:
            talk.communicate(timeout=TIMEOUT)
        assert talk.returncode == 0


def test_websocat_receives_its_echoed_lines() -> None:
    program = websocat()
    with ServerProcess(*COMMAND, "--port", "0") as process:
        url = f"ws://localhost:{process.port}/echo"
        talk = subprocess.Popen([program, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert talk.stdin is not None
            assert talk.stdout is not None
            for line in ("one", "zwei, drei", "x" * 5000):
                talk.stdin.write(f"{line}\n".encode())
                talk.stdin.flush()
                assert talk.stdout.readline() == f"{line}\n".encode()
        finally:
            talk.communicate(timeout=TIMEOUT)
        assert talk.returncode == 0


@pytest.mark.slow
def test_curl_prints_events_as_they_arrive() -> None:
    program = shutil.which("curl")
    if program is None:
        missing_tool("curl")
    with ServerProcess(*COMMAND, "--port", "0") as process:
        url = f"http://localhost:{process.port}/time"
        talk = subprocess.Popen(
            [program, "--no-progress-meter", "-N", "--max-time", "30", url], stdout=subprocess.PIPE
        )
        try:
            assert talk.stdout is not None
            os.set_blocking(talk.stdout.fileno(), True)
            lines = [talk.stdout.readline().decode().strip() for _ in range(10)]
        finally:
            talk.kill()
            talk.communicate(timeout=TIMEOUT)
    retry, blank, opening, other_blank, *events = lines
    assert re.fullmatch(r"retry: [1-3]\d\d\d", retry)
    assert blank == other_blank == ""
    numbers = [int(line.rpartition("-")[2]) for line in (opening, events[0], events[3])]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    for number in (0, 3):
        assert events[number].startswith("id: ")
        assert re.fullmatch(r"data: \d\d:\d\d:\d\d", events[number + 1])
    assert events[2] == ""


def test_the_demo_serves_its_page_and_its_clock() -> None:
    with ServerProcess(*COMMAND, "--port", "0") as process:
        stream = StreamClient(process.port, "/time")
        assert re.fullmatch(r"\d\d:\d\d:\d\d", stream.next_event().data)
        stream.close()
        chatting = [WebSocketClient(process.port, "/chat") for _ in range(3)]
        # A client receives no greeting, so its own message confirms that it is subscribed.
        for number, client in enumerate(chatting):
            client.send_messages(f"{number}")
            while client.next_event() != f"{number}":
                pass
        chatting[0].send_messages("to all")
        for client in chatting:
            while client.next_event() != "to all":
                pass
        for client in chatting:
            client.leave()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
def test_a_signal_closes_all_clients_of_the_demo() -> None:
    with ServerProcess(*COMMAND, "--port", "0", "--drain", "1") as process:
        hello, echo, chat = (
            WebSocketClient(process.port, path) for path in ("/hello", "/echo", "/chat")
        )
        assert hello.next_event() == "Hello world!"
        for client in (hello, echo, chat):
            client.send_messages("one")
        for client in (echo, chat):
            assert client.next_event() == "one"
        stream = StreamClient(process.port, "/time")
        stream.expect(1)
        process.signal(signal.SIGTERM)
        for client in (hello, echo, chat):
            assert client.expect_close() == Close(1001, "the server is shutting down")
        stream.close()
        assert process.wait()[0] == 0
