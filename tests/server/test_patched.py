"""A process whose sockets and threads gevent or eventlet has replaced.

They remove ``select.epoll``, because a wait in the system would block all greenlets. So the loop
uses the functions in Python.
"""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.clients import WebSocketClient
from tests.support.processes import COMMAND, ServerProcess, run
from tests.support.tools import missing_tool

PROGRAM = """
import {library}
{patch}
import select
from wsframe.client import connect
from wsframe.server import App, rounds

assert not hasattr(select, "epoll")
assert not rounds.usable()
app = App()

@app.websocket("/generator")
def generator(ws):
    while True:
        message = yield
        ws.send(message)

@app.websocket("/function")
def function(ws):
    for message in ws:
        ws.send(message)

with app.start(port=0, loops=1) as server:
    for path in ("/generator", "/function"):
        with connect(f"ws://127.0.0.1:{{server.port}}{{path}}") as ws:
            for message in ("text", b"bytes", "x" * 70_000, b"y" * 300_000):
                ws.send(message)
                assert ws.receive(timeout=20) == message
print("served")
"""
PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "eventlet.monkey_patch()",
}


# The patches of each library, by the modules that matter.
PARTS = {
    "select and threading": PATCHES,
    "select": {
        "gevent": "from gevent import monkey; monkey.patch_all(thread=False)",
        "eventlet": "eventlet.monkey_patch(thread=False)",
    },
    "": {
        "gevent": "from gevent import monkey; monkey.patch_time()",
        "eventlet": "eventlet.monkey_patch(time=True)",
    },
}
SELECT = "the loops use I/O functions in Python instead of the compiled ones"
THREADS = (
    "threads of handlers are greenlets, so a handler blocks all clients unless it waits in the "
    "patched modules of Python"
)
ADVICE = "without the patch the server is faster, for example with gunicorn --worker-class gthread"
START = """
import logging, sys
import {library}
{patch}
from wsframe.server import App

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
App().start(port=0).stop()
"""


def lines_of(program: str) -> list[str]:
    """Return the lines that a program prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("library", PATCHES)
@pytest.mark.parametrize(
    ("replaced", "meanings"),
    [("select and threading", f"{SELECT}; {THREADS}"), ("select", SELECT), ("", "")],
)
def test_a_line_of_the_log_states_the_patch_and_its_consequences(
    library: str, replaced: str, meanings: str
) -> None:
    if importlib.util.find_spec(library) is None:
        missing_tool(library)
    program = START.format(library=library, patch=PARTS[replaced][library])
    line = f"WARNING {library} has patched {replaced}: {meanings}; {ADVICE}"
    assert lines_of(program) == ([line] if replaced else [])


@pytest.mark.parametrize("library", PATCHES)
def test_the_functions_in_python_serve_a_patched_process(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        missing_tool(library)
    program = PROGRAM.format(library=library, patch=PATCHES[library])
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "served\n", done.stderr


TOO_LATE = """
import logging, sys
from wsframe.server import App
import {library}
{patch}

logging.basicConfig(stream=sys.stdout, format="%(message)s")
try:
    App().start(port=0)
except RuntimeError as error:
    logging.getLogger("wsframe.server").warning("logged")
    print(str(error)[:66])
"""


@pytest.mark.parametrize("library", PATCHES)
def test_a_process_that_was_patched_after_the_import_is_refused(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        missing_tool(library)
    program = TOO_LATE.format(library=library, patch=PATCHES[library])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=60
    )
    lines = {"gevent or eventlet has patched Python after wsframe was imported: ", "logged"}
    assert set(done.stdout.splitlines()) == lines, done.stderr


SCRIPT = """
import {library}
{patch}
from wsframe.server import App

app = App()

@app.websocket("/echo")
def echo(ws):
    for message in ws:
        ws.send(message)

if __name__ == "__main__":
    app.run(port=0)
"""


@pytest.fixture(params=PATCHES)
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A program that a library patches, in its own folder."""
    library = request.param
    if importlib.util.find_spec(library) is None:
        missing_tool(library)
    path = tmp_path / f"with_{library}.py"
    path.write_text(SCRIPT.format(library=library, patch=PATCHES[library]))
    return path


@pytest.mark.slow
def test_run_serves_and_stops_in_a_patched_process(script: Path) -> None:
    with ServerProcess("-W", "ignore", str(script)) as process:
        client = WebSocketClient(process.port, "/echo")
        client.send_messages("hello")
        assert client.next_event() == "hello"
        assert client.leave().code == 1000
        process.signal(signal.SIGTERM)
        code, output = process.wait()
    assert (code, "ERROR" in output) == (0, False), output


COMMANDS = {
    "with_gevent": "serve it with: python -m gevent.monkey --module wsframe serve with_gevent:app",
    "with_eventlet": "call app.run() in a program that begins with eventlet.monkey_patch()",
}


# A warning starts the thread of the log before the import.
@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--workers=2"], ["--redis=redis://:secret@localhost/"]])
def test_a_program_that_patches_while_the_command_imports_it_is_refused(
    script: Path, options: list[str]
) -> None:
    command = [sys.executable, "-W", "ignore", *COMMAND, f"{script.stem}:app", "--port=0", *options]
    done = run(command, script.parent)
    library = script.stem.removeprefix("with_")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        f"the import of {script.stem!r} has patched Python with {library}, but wsframe was "
        f"imported before: remove the patch, or {COMMANDS[script.stem]}",
    )
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_command_serves_a_program_after_gevent_has_patched(tmp_path: Path) -> None:
    if importlib.util.find_spec("gevent") is None:
        missing_tool("gevent")
    path = tmp_path / "late.py"
    path.write_text(SCRIPT.format(library="gevent", patch=PATCHES["gevent"]))
    early = ("-m", "gevent.monkey", "--module", "wsframe", "serve", "late:app", "--port=0")
    with ServerProcess(*early, directory=tmp_path) as process:
        client = WebSocketClient(process.port, "/echo")
        client.send_messages("hello")
        assert client.next_event() == "hello"
        client.close()
