"""The environment that make sets up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tools import missing_tool

MAKEFILE = Path(__file__).parent.parent / "Makefile"
CORES = os.cpu_count() or 1
HEADERS = "Python.h (python3-dev on Debian and Ubuntu, python3-devel on Fedora)"
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


# A sitecustomize.py: the system has only some of the tools.
SYSTEM = """
import shutil
import sysconfig

shutil.which = lambda name: {compiler}
sysconfig.get_path = lambda name: {include}
"""


@pytest.mark.parametrize(
    ("compiler", "headers", "missing"),
    [
        (True, True, None),
        (True, False, HEADERS),
        (False, True, "a C compiler"),
        (False, False, f"a C compiler and {HEADERS}"),
    ],
)
def test_one_line_names_what_a_compiled_codec_requires(
    tmp_path: Path, compiler: bool, headers: bool, missing: str | None
) -> None:
    make = shutil.which("make")
    if make is None or not MAKEFILE.exists():
        missing_tool("make, or the Makefile")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "Python.h"):
        (tmp_path / name).touch()
    for name in ("attack", "src", "tests", "tools"):
        (tmp_path / name).mkdir()
    site, venv, python = tmp_path / "site", tmp_path / "venv", tmp_path / "python"
    site.mkdir()
    include = repr(str(tmp_path if headers else site))
    (site / "sitecustomize.py").write_text(SYSTEM.format(compiler=compiler, include=include))
    real = f'case "$*" in *Python.h*) PYTHONPATH={site} exec {sys.executable} "$@";; esac\n'
    python.write_text(f"{PYTHON.format(log=tmp_path / 'log')}{real}", encoding="utf-8")
    python.chmod(0o755)
    targets = [f"{venv}/installed-server", f"{venv}/package"]
    command = [make, "-f", str(MAKEFILE), f"VENV={venv}", f"PYTHON={python}", *targets]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    line = f"The codec is not compiled. Install {missing}, then make compiles it.\n"
    assert done.stderr == ("" if missing is None else line)
    assert (venv / "no-compiler").exists() is (missing is not None)


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
