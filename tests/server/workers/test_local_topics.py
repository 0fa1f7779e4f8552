"""Topics in several workers without Redis, which are a mistake in most programs."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.clients import WebSocketClient
from tests.support.processes import ServerProcess
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the workers share a port")

WARNING = "topics are used in several workers without Redis"
PROGRAM = """
import sys
from wsframe.server import App

workers, when, *redis = sys.argv[1:]
app = App(redis=redis[0] if redis else None)
if when == "early":
    app.sse("/news", source=app.topic("news"))

@app.websocket("/")
def talk(ws):
    if when != "never":
        app.topic("chat"), app.topic("news")
    ws.send("done")
    yield

app.run("127.0.0.1", 0, workers=int(workers), drain=0)
"""


def warnings(folder: Path, stack: ExitStack, *arguments: str) -> list[str]:
    """Run the program for one client; return the warnings about its topics."""
    (folder / "program.py").write_text(PROGRAM, encoding="utf-8")
    with open(folder / "log", "w", encoding="utf-8") as log:
        process = stack.enter_context(
            ServerProcess("program.py", *arguments, directory=folder, stderr=log.fileno())
        )
    client = WebSocketClient(process.port, "/")
    assert client.next_event() == "done"
    client.close()
    process.signal(signal.SIGTERM)
    code, _ = process.wait()
    assert code == 0
    lines = (folder / "log").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if WARNING in line]


@pytest.mark.parametrize(
    ("workers", "when", "number"),
    [(2, "early", 2), (2, "late", 1), (2, "never", 0), (1, "early", 0)],
)
def test_each_worker_with_topics_logs_it_once(
    tmp_path: Path, stack: ExitStack, workers: int, when: str, number: int
) -> None:
    assert len(warnings(tmp_path, stack, str(workers), when)) == number


def test_topics_in_redis_are_no_problem(
    tmp_path: Path, stack: ExitStack, redis_server: RedisServer
) -> None:
    assert warnings(tmp_path, stack, "2", "early", redis_server.url) == []
