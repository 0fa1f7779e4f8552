"""The program: its commands, its help and its version."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.processes import run as run_process
from tests.support.waiting import TIMEOUT
from wsframe import __version__
from wsframe.cli import main
from wsframe.cli.program import COMMANDS, GROUPS
from wsframe.kernels import INSTRUCTION_SET

# Modules that only some commands may import.
LIBRARIES = ("wsframe.server", "wsframe.client", "h11", "httptools", "argparse")


@pytest.mark.parametrize("option", ["--help", "-h", "help"])
def test_the_help_names_every_command_in_its_group(run: Run, option: str) -> None:
    ran = run(option)
    assert ran.code == 0
    assert ran.out[0] == "usage: wsframe COMMAND [ARGUMENT ...]"
    for group, commands in GROUPS.items():
        at = ran.out.index(f"{group}:")
        for name, command in commands.items():
            assert any(
                line.split(None, 1) == [name, command.summary] for line in ran.out[at : at + 4]
            )
    assert "examples:" in ran.out


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_the_version_names_the_kernels_and_the_python(run: Run, option: str) -> None:
    (line,) = run(option).out
    assert line.startswith(f"wsframe {__version__}, kernels: {INSTRUCTION_SET}, ")
    assert ".".join(map(str, sys.version_info[:3])) in line


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["--version", "-V"])
def test_every_command_prints_the_version_of_the_program(run: Run, name: str, option: str) -> None:
    ran = run(name, option)
    assert (ran.code, ran.out) == (0, run("--version").out)


@pytest.mark.slow
def test_the_server_prints_the_version_of_the_program(run: Run) -> None:
    ran = run_process([sys.executable, "-m", "wsframe.server", "--version"])
    assert (ran.returncode, ran.stdout.splitlines()) == (0, run("--version").out)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_example_has_a_secret_in_its_arguments(run: Run, name: str) -> None:
    text = "\n".join(run(name, "--help").out).partition("examples:")[2]
    assert not re.search("authorization|cookie|password|token", text, re.IGNORECASE)


@pytest.mark.parametrize("name", ["connect", "events", "doctor"])
def test_the_help_of_requests_names_files_for_headers(run: Run, name: str) -> None:
    text = " ".join(" ".join(run(name, "--help").out).split())
    assert "@FILE reads headers from a file" in text
    assert "-H @secrets" in text


def test_no_command_is_answered_with_the_help(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["wsframe"])
    ran = run()
    assert (ran.code, ran.out) == (2, [])
    assert "examples:" in ran.err


@pytest.mark.parametrize(
    ("name", "hint"), [("conn", "; did you mean 'connect'?"), ("nothing at all", "")]
)
def test_an_unknown_command_is_named_in_one_line(run: Run, name: str, hint: str) -> None:
    ran = run(name)
    assert ran.code == 2
    commands = ", ".join(COMMANDS)
    assert ran.err == [f"wsframe: no command {name!r}{hint} (commands: {commands})"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(run: Run, name: str) -> None:
    ran = run(name, "--help")
    assert ran.code == 0
    assert ran.out[0].startswith(f"usage: wsframe {name}")
    assert "examples:" in ran.out


def test_help_of_a_command_is_its_help(run: Run) -> None:
    assert run("help", "events").out == run("events", "--help").out
    assert run("help", "nothing").out == run("--help").out


posix = pytest.mark.skipif(sys.platform == "win32", reason="the shell is POSIX's")


def run_in_shell(
    arguments: str, *, module: str = "wsframe", directory: Path | None = None
) -> tuple[int, str, str]:
    """Run a module with the redirections of a shell; return its exit code and output."""
    command = f"exec {shlex.quote(sys.executable)} -m {module} {arguments}"
    ran = run_process(["sh", "-c", command], directory)
    return ran.returncode, ran.stdout, ran.stderr


@posix
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--version >&-", 0),
        ("--version 2>&-", 0),
        ("connect 127.0.0.1:1 >&-", 3),
        ("connect 127.0.0.1:1 2>&-", 3),
        ("events 127.0.0.1:1 >&- 2>&-", 3),
        ("doctor 127.0.0.1:1 >&-", 1),
        ("serve wsframe:nothing 2>&-", 1),
    ],
)
def test_a_closed_stream_changes_neither_the_exit_code_nor_the_other_stream(
    arguments: str, code: int
) -> None:
    found, out, err = run_in_shell(arguments)
    assert found == code
    assert "Traceback" not in out + err
    assert (">&-" in arguments.replace("2>&-", "")) <= (out == "")
    assert ("2>&-" in arguments) <= (err == "")


# A program that ends with code 7 if these descriptors discard everything.
DISCARDING = """
import os, sys
null = os.stat(os.devnull)
sys.exit(7 if all(os.path.samestat(os.fstat(each), null) for each in {descriptors}) else 8)
"""


@posix
@pytest.mark.parametrize(
    ("module", "arguments"), [("wsframe", "serve program:app"), ("wsframe.server", "program:app")]
)
@pytest.mark.parametrize(
    ("closed", "descriptors"),
    [(">&-", [1]), ("2>&-", [2]), (">&- 2>&-", [1, 2]), ("<&- >&- 2>&-", [0, 1, 2])],
)
def test_no_file_of_the_program_gets_the_descriptor_of_a_closed_stream(
    tmp_path: Path, module: str, arguments: str, closed: str, descriptors: list[int]
) -> None:
    program = DISCARDING.format(descriptors=descriptors)
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    ran = run_in_shell(f"{arguments} {closed}", module=module, directory=tmp_path)
    assert ran == (7, "", "")


@posix
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_does_not_change_the_help_of_the_server(closed: str) -> None:
    code, out, err = run_in_shell(f"--help {closed}", module="wsframe.server")
    assert (code, err) == (0, "")
    assert (closed == ">&-") is (out == "")


@posix
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    ("module", "arguments", "name"),
    [
        ("wsframe", "--version", " --version"),
        ("wsframe", "--help", " --help"),
        ("wsframe", "doctor 127.0.0.1:1", " doctor"),
        ("wsframe", "serve --help", " serve"),
        ("wsframe", "help connect", " help"),
        ("wsframe", "bench --version", " bench"),
        ("wsframe.server", "--help", ""),
    ],
)
def test_output_that_cannot_be_written_is_a_failure(module: str, arguments: str, name: str) -> None:
    reason = f"python -m {module}{name}: cannot write the output: No space left on device\n"
    assert run_in_shell(f"{arguments} >/dev/full", module=module) == (1, "", reason)


@posix
@pytest.mark.parametrize("arguments", [["bench", "--rounds=1", "--slice=0.001"], ["--help"]])
def test_the_end_of_the_reader_is_a_failure_without_a_message(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        command = [sys.executable, "-m", "wsframe", *arguments]
        ran = subprocess.run(
            command, stdout=pipe, stderr=subprocess.PIPE, timeout=TIMEOUT, check=False
        )
    assert (ran.returncode, ran.stderr) == (1, b"")


@pytest.mark.parametrize(("name", "library"), [("serve", "httptools"), ("events", "h11")])
def test_a_missing_library_is_named_with_its_extra(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    def missing(module: str, package: str) -> None:
        raise ModuleNotFoundError(f"No module named {library!r}", name=f"{library}.parser")

    monkeypatch.setattr("importlib.import_module", missing)
    ran = run(name)
    extra = COMMANDS[name].extra
    assert (ran.code, ran.err) == (
        1,
        [f"wsframe {name} requires {library}: pip install 'wsframe[{extra}]'"],
    )


def test_a_missing_module_of_the_package_is_no_missing_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(module: str, package: str) -> None:
        raise ModuleNotFoundError("No module named 'wsframe.x'", name="wsframe.x")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ModuleNotFoundError):
        main(["serve"])


@pytest.mark.slow
def test_the_package_is_a_program() -> None:
    result = run_process([sys.executable, "-m", "wsframe", "connect"])
    assert result.returncode == 2
    assert result.stderr.startswith("usage: python -m wsframe connect")


@pytest.mark.slow
def test_importing_the_codec_imports_neither_client_nor_server_nor_command_line() -> None:
    code = f"""
import sys, wsframe
print([name for name in sys.modules if name.startswith({(*LIBRARIES, "wsframe.cli")})])
"""
    result = run_process([sys.executable, "-c", code])
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_the_package_declares_the_program() -> None:
    from importlib.metadata import entry_points

    scripts = entry_points(group="console_scripts")
    found = [script for script in scripts if script.name == "wsframe"]
    assert all(script.load() is main for script in found)
