"""A process whose sockets and threads gevent or eventlet has replaced.

They remove ``select.epoll``, because a wait in the system would block all greenlets. So the loop
uses the functions in Python.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

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
