"""A stop signal that arrives while the application is loaded or started."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from tests.support.processes import ServerProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")

# Every place of user code with and without workers, and both signals with each of these.
STARTS = pytest.mark.parametrize(
    ("how", "workers", "number"),
    [
        ("import", "0", signal.SIGTERM),
        ("import", "2", signal.SIGINT),
        ("on_start", "0", signal.SIGINT),
        ("on_start", "2", signal.SIGTERM),
    ],
)
# ServerProcess expects a group for the port, which is not known here.
LOADING = re.compile("loading")

SLOW = """
import os, time

def slow():
    try:
        os.write(1, b"loading\\n")
        time.sleep(60)
    finally:
        os.write(1, b"interrupted\\n")
"""

# User code that is running when the signal arrives.
HABITS = {
    "waits": "slow()",
    "catches every Exception": """
try:
    slow()
except Exception:
    os.write(1, b"caught\\n")
""",
    "suppresses every exception": """
try:
    slow()
except BaseException:
    pass
""",
}
STUBBORN = """
try:
    slow()
finally:
    slow()
"""

IMPORTED = """
{slow}
{code}
from wsframe.server import App
app = App()
"""
STARTED = """
import sys
from wsframe.server import App
{slow}
app = App()

@app.on_start
def start():
    {code}

if __name__ == "__main__":
    app.run("127.0.0.1", 0, workers=int(sys.argv[1]))
    os.write(1, b"run returned\\n")
"""


def start(directory: Path, how: str, workers: str, code: str) -> ServerProcess:
    """Start a program that runs this user code when it is imported or started."""
    if how == "import":
        program = IMPORTED.format(slow=SLOW, code=code)
        command = ["-m", "wsframe.server", "program:app", "--port", "0", "--workers", workers]
    else:
        program = STARTED.format(slow=SLOW, code=code.replace("\n", "\n    "))
        command = ["program.py", workers]
    (directory / "program.py").write_text(program, encoding="utf-8")
    return ServerProcess(*command, directory=directory, until=LOADING)


# A process that is ended by the kernel or by Python itself has another exit code. Neither would
# end the first process of a PID namespace, as in a container.
@pytest.mark.slow
@pytest.mark.parametrize(
    "habit",
    [
        "waits",
        pytest.param("catches every Exception", marks=pytest.mark.unmeasured),
        pytest.param("suppresses every exception", marks=pytest.mark.unmeasured),
    ],
)
@STARTS
def test_a_signal_ends_the_start_at_once_and_cleanly(
    tmp_path: Path, how: str, workers: str, habit: str, number: signal.Signals
) -> None:
    with start(tmp_path, how, workers, HABITS[habit]) as process:
        process.signal(number)
        code, output = process.wait()
        assert code == 0, output
        assert "Traceback" not in output
        assert "Serving" not in output
        assert ("run returned" in output) == (how == "on_start")


@pytest.mark.slow
@STARTS
def test_a_second_signal_forces_the_end(
    tmp_path: Path, how: str, workers: str, number: signal.Signals
) -> None:
    with start(tmp_path, how, workers, STUBBORN) as process:
        process.signal(number)
        process.expect(re.compile("interrupted"))
        process.signal(number)
        code, output = process.wait()
        assert code == 1
        assert "run returned" not in output
