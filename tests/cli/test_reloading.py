"""The option --reload: the server restarts when a file of its program changes."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.support.clients import Client, get
from tests.support.processes import COMMAND, URL, ServerProcess
from wsframe.cli.reloading import Files

# Its process leaves the directory in which it began.
PROGRAM = """
import os
from wsframe.server import App
app = App()
app.page("/", "{text}")
os.chdir(os.pardir)
"""
WAITING = re.compile("^Not serving, because the program failed to start. Waiting for a change.$")


def body(process: ServerProcess, port: int) -> bytes:
    client = Client(port)
    client.send(get("/"))
    return client.answer().body


def change(path: Path, text: str) -> None:
    """Replace a file at once, as editors do."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    os.utime(new, ns=(0, path.stat().st_mtime_ns + 2 * 10**9 if path.exists() else 0))
    new.replace(path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_the_server_restarts_when_a_module_changes(tmp_path: Path) -> None:
    program, module = tmp_path / "program.py", tmp_path / "module.py"
    program.write_text(PROGRAM.format(text="one"), encoding="utf-8")
    command = (*COMMAND, "program:app", "--reload", "--port=0")
    with ServerProcess(*command, directory=tmp_path) as process:
        assert body(process, process.port) == b"one"
        change(program, PROGRAM.format(text="two"))
        process.expect(re.compile(r"Restarting, because program\.py has changed"))
        assert body(process, int(process.expect(URL)["port"])) == b"two"

        # A program that cannot be loaded is loaded again after the next change.
        change(program, "if\n")
        process.expect(re.compile("SyntaxError"))
        process.expect(WAITING)
        change(program, "import module\n" + PROGRAM.format(text="three"))
        process.expect(re.compile("No module named 'module'"))
        process.expect(WAITING)
        change(module, "")
        process.expect(re.compile(r"Restarting, because module\.py has changed"))
        assert body(process, int(process.expect(URL)["port"])) == b"three"

        change(program, "app = None\n")
        process.expect(re.compile("'app' in module 'program' is not an App"))
        process.expect(WAITING)
        process.signal(signal.SIGTERM)
        assert process.wait()[0] == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_signal_ends_a_server_that_reloads(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.format(text="one"), encoding="utf-8")
    command = (*COMMAND, "program:app", "--reload", "--port=0")
    with ServerProcess(*command, directory=tmp_path) as process:
        process.signal(signal.SIGTERM)
        code, output = process.wait()
        assert code == 0, output
        assert "Restarting" not in output


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_failed_start_is_reported_in_the_format_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("if\n", encoding="utf-8")
    command = (*COMMAND, "program:app", "--reload", "--port=0", "--log-format=json")
    failed = re.compile(r'^{.*"message": "SyntaxError: invalid syntax".*}$')
    with ServerProcess(*command, directory=tmp_path, until=failed) as process:
        record = json.loads(process.expect(re.compile("^.*$"))[0])
        assert WAITING.match(record["message"])
        process.signal(signal.SIGTERM)
        assert process.wait() == (0, "")


def test_changes_of_files_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.py").touch()
    elsewhere = tmp_path / "folder" / "elsewhere.py"
    elsewhere.parent.mkdir()
    files = Files()
    assert files.changed() == ""
    change(tmp_path / "here.py", "x = 1")
    assert files.changed() == str(tmp_path / "here.py")
    assert files.changed() == ""
    (tmp_path / "here.py").unlink()
    assert files.changed() == str(tmp_path / "here.py")
    (tmp_path / "new.py").touch()
    assert files.changed() == str(tmp_path / "new.py")
    elsewhere.touch()
    files.add(str(elsewhere))
    assert files.changed() == ""  # a file that has just been imported has not changed
    change(elsewhere, "x = 1")
    assert files.changed() == str(elsewhere)
