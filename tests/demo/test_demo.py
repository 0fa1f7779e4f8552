"""The demo, with real clients."""

from __future__ import annotations

import json
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
from wsframe import Close, demo


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


def received(client: WebSocketClient, topic: str, **expected: object) -> str:
    """Wait for an event of a topic whose data has these items; return its id."""
    while True:
        event = client.next_event()
        assert isinstance(event, str)
        envelope = json.loads(event)
        if envelope["topic"] != topic or "data" not in envelope:
            continue
        data = json.loads(envelope["data"])
        if expected.items() <= data.items():
            return str(envelope["id"])


def test_the_demo_has_a_clock_and_a_chat_with_history_and_presence() -> None:
    with ServerProcess(*COMMAND, "--port", "0") as process:
        stream = StreamClient(process.port, "/time")
        assert re.fullmatch(r"\d\d:\d\d:\d\d", stream.next_event().data)
        ann = WebSocketClient(process.port, "/chat?name=Ann")
        ann.send_messages("one", "two")
        place = received(ann, "chat", name="Ann", text="one")
        nameless = WebSocketClient(process.port, "/chat?name=%20")
        received(nameless, "chat", name="Ann", text="one")
        resumed = WebSocketClient(process.port, f"/chat?name=Bob&after={place}")
        resumed.send_messages("three")
        for client in (nameless, resumed):
            received(client, "chat", name="Ann", text="two")
            received(client, "chat", name="Bob", text="three")
        received(ann, "status", people=["Ann", "Bob", "guest"], connections=4)
        stream.close()
        for client in (ann, nameless, resumed):
            client.close()


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        (
            "Project-URL: Source, https://forge.example/wsframe\n",
            '<a href="https://forge.example/wsframe">documentation and source of wsframe</a>',
        ),
        ("Project-URL: Other, https://other.example/\n", "in the source of wsframe"),
    ],
)
def test_the_page_links_to_the_public_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: str, shown: str
) -> None:
    folder = tmp_path / "wsframe-0.dist-info"
    folder.mkdir()
    text = f"Metadata-Version: 2.4\nName: wsframe\nVersion: 0\n{fields}"
    (folder / "METADATA").write_text(text, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert shown in demo.documentation()


def test_without_metadata_the_page_names_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert "<code>docs/</code>" in demo.documentation()


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
        assert echo.next_event() == "one"
        received(chat, "chat", name="guest", text="one")
        stream = StreamClient(process.port, "/time")
        stream.expect(1)
        process.signal(signal.SIGTERM)
        closed = Close(1001, "the server is shutting down")
        for client in (hello, echo):
            assert client.expect_close() == closed
        while isinstance(event := chat.next_event(), str):
            pass  # statistics
        assert event == closed
        chat.close()
        stream.close()
        assert process.wait()[0] == 0
