"""The environment that make sets up."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.tools import missing_tool

MAKEFILE = Path(__file__).parent.parent / "Makefile"
CORES = os.cpu_count() or 1
# An interpreter that records its arguments. It creates environments like itself, and has pip.
PYTHON = """#!/bin/sh
echo "$@" >>{log}
if [ "$2" = venv ]; then
    for folder in "$@"; do :; done
    mkdir -p $folder/bin
    touch $folder/pyvenv.cfg
    cp $0 $folder/bin/python
fi
"""


@pytest.mark.parametrize("broken", [False, True])
def test_a_broken_environment_is_set_up_again(tmp_path: Path, broken: bool) -> None:
    make = shutil.which("make")
    if make is None or not MAKEFILE.exists():
        missing_tool("make, or the Makefile")
    venv, log, python = tmp_path / "venv", tmp_path / "log", tmp_path / "python"
    python.write_text(PYTHON.format(log=log), encoding="utf-8")
    python.chmod(0o755)
    arguments = [f"VENV={venv}", f"PYTHON={python}", f"{venv}/recent-pip"]
    command = [make, "-f", str(MAKEFILE), *arguments]
    for _ in range(2):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    created = f"-m venv {venv}"
    assert log.read_text("utf-8").splitlines().count(created) == 1
    stamp = venv / "installed-test"
    stamp.touch()
    log.write_text("", encoding="utf-8")
    if broken:
        (venv / "bin" / "python").unlink()
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert stamp.exists() is not broken
    assert (f"-m venv --clear {venv}" in log.read_text("utf-8").splitlines()) is broken
    assert (f"{venv} has no working pip" in done.stdout) is broken


@pytest.mark.parametrize("compiler", [False, True])
def test_pure_kernels_are_replaced_once_there_is_a_compiler(tmp_path: Path, compiler: bool) -> None:
    make = shutil.which("make")
    if make is None or not MAKEFILE.exists():
        missing_tool("make, or the Makefile")
    venv, python = tmp_path / "venv", tmp_path / "python"
    missing = "" if compiler else 'case "$*" in *Python.h*) exit 1;; esac\n'
    python.write_text(f"{PYTHON.format(log=tmp_path / 'log')}{missing}", encoding="utf-8")
    python.chmod(0o755)
    command = [make, "-f", str(MAKEFILE), f"VENV={venv}", f"PYTHON={python}", f"{venv}/recent-pip"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    stamps = [venv / "installed-server", venv / "package", venv / "no-compiler"]
    for stamp in stamps:
        stamp.touch()
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert [stamp.exists() for stamp in stamps] == [not compiler] * 3
    assert ("there is a C compiler now" in done.stdout) is compiler


@pytest.mark.parametrize(
    ("target", "variable", "argument", "workers"),
    [
        ("check", None, None, 3 * CORES),
        ("test", None, None, 2 * CORES),
        ("check", "7", None, 7),
        ("test", "7", None, 7),
        ("check", None, "7", 7),
        ("check", "5", "7", 7),
    ],
)
def test_the_number_of_test_workers_is_an_argument_or_a_variable(
    tmp_path: Path, target: str, variable: str | None, argument: str | None, workers: int
) -> None:
    make = shutil.which("make")
    if make is None or not MAKEFILE.exists():
        missing_tool("make, or the Makefile")
    ours = ("WORKERS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    environment |= {} if variable is None else {"WORKERS": variable}
    command = [make, "--dry-run", "-C", str(MAKEFILE.parent), f"VENV={tmp_path / 'venv'}", target]
    command += [] if argument is None else [f"WORKERS={argument}"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert f" -n {workers} --dist " in done.stdout
