"""The program: its commands, its help and its version."""

from __future__ import annotations

import sys

import pytest

from tests.cli.conftest import Run
from tests.support.processes import run as run_process
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
