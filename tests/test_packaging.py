"""The sdist, wheels with and without the compiled extensions, and installs without a compiler."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.pages import links
from tests.support.tools import missing_tool
from wsframe import __version__

pytestmark = [pytest.mark.unmeasured, pytest.mark.slow]

ROOT = Path(__file__).parent.parent
NO_COMPILER = {"CC": "/nonexistent/cc", "CXX": "/nonexistent/c++"}
ADDRESS = "https://forge.example/wsframe"
WARNING = "wsframe: building the compiled kernels failed; the pure kernels will be used."

# A sitecustomize.py, as on a system without the header files of Python.
NO_HEADERS = """
import sysconfig
get_path = sysconfig.get_path
sysconfig.get_path = lambda name, *more: "/none" if name == "include" else get_path(name, *more)
"""

# MSVC is not found by the variable CC.
unix = pytest.mark.skipif(sys.platform == "win32", reason="CC does not choose the compiler here")


def environment(**changes: str) -> dict[str, str]:
    """Return this environment without variables that affect a build or an import."""
    decide = ("WSFRAME_", "PIP_", "PYTHON", "COV")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(decide)}
    return {**clean, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", **changes}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of the sources, so that builds do not share their files."""
    if not (ROOT / "setup.py").exists():
        missing_tool("the source tree of wsframe")
    copy = tmp_path / "sources"
    copy.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    ignored = shutil.ignore_patterns(
        "*.so", "*.pyd", "_kernels.c", "_rounds.c", "*.egg-info", "__pycache__"
    )
    shutil.copytree(ROOT / "src", copy / "src", ignore=ignored)
    return copy


def can_build_here() -> bool:
    """Return True if the build requirements of pyproject.toml are installed."""
    required = {"setuptools": (77,), "Cython": (3, 1)}
    try:
        return all(
            tuple(map(int, metadata.version(name).split(".")[:2])) >= version
            for name, version in required.items()
        )
    except (metadata.PackageNotFoundError, ValueError):
        return False


def pip(*arguments: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run pip; without downloads if the build requirements are installed."""
    if importlib.util.find_spec("pip") is None:
        missing_tool("pip")
    return subprocess.run(
        [
            *(sys.executable, "-m", "pip", *map(str, arguments), "-v", "--no-deps"),
            *(["--no-build-isolation"] if can_build_here() else []),
        ],
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )


def build_wheel(sources: Path, **changes: str) -> Path:
    """Build the wheel and return its path."""
    target = sources.parent / "wheels"
    done = pip("wheel", sources, "-w", target, **changes)
    assert done.returncode == 0, done.stdout
    (wheel,) = target.iterdir()
    return wheel


def names_in(wheel: Path) -> list[str]:
    """Check properties that every wheel must have; return the names of its files."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    (dist_info,) = tops - {"wsframe"}
    assert dist_info == f"wsframe-{__version__}.dist-info"
    assert {"wsframe/__init__.py", "wsframe/py.typed", "wsframe/server/__init__.py"} <= set(names)
    assert f"{dist_info}/licenses/LICENSE" in names
    modules = {path.stem for path in (ROOT / "src" / "wsframe").glob("*.py")}
    assert modules <= {Path(name).stem for name in names if name.count("/") == 1}
    sources = (".c", ".h", ".o", ".pyx")
    assert not [name for name in names if name.endswith(sources)]
    return names


def run_installed(target: Path, *arguments: str | Path, **changes: str) -> list[str]:
    """Run Python with the packages installed in the directory; return the lines it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env=environment(PYTHONPATH=str(target), **changes),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def check_installed(target: Path, kernels: str, **changes: str) -> None:
    """Exchange messages with the package in the directory, which must use these kernels."""
    (line,) = run_installed(target, ROOT / "tools" / "smoke.py", kernels, **changes)
    assert line.endswith(f" in {target / 'wsframe'}")


def quick_compiler(directory: Path) -> dict[str, str]:
    """Return variables that choose a C compiler without optimization, which takes most of its time.

    The variable CFLAGS cannot do that, because later options of ``setup.py`` override it.
    """
    if sys.platform == "win32":
        return {}
    compiler = directory / "cc"
    compiler.write_text('#!/bin/sh\nexec cc "$@" -O0\n', encoding="utf-8")
    compiler.chmod(0o755)
    return {"CC": str(compiler)}


def compiled_files(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith((".so", ".pyd", ".dll", ".dylib"))]


def test_a_wheel_contains_the_compiled_kernels(compiled: ModuleType, sources: Path) -> None:
    # The fixture ``compiled`` skips the test if the kernels cannot be built here.
    wheel = build_wheel(sources, WSFRAME_BUILD_EXT="require", **quick_compiler(sources.parent))
    names = sorted(name.partition(".")[0] for name in compiled_files(names_in(wheel)))
    io = ["wsframe/server/_rounds"] if sys.platform == "linux" else []
    assert names == ["wsframe/_kernels", *io]
    assert not wheel.name.endswith("-none-any.whl")
    target = sources.parent / "target"
    done = pip("install", wheel, "--target", target)
    assert done.returncode == 0, done.stdout
    check_installed(target, "compiled")
    check_installed(target, "pure", WSFRAME_PURE="1")


def test_a_wheel_without_the_extension_is_for_every_system(sources: Path) -> None:
    wheel = build_wheel(sources, WSFRAME_BUILD_EXT="no", **NO_COMPILER)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert compiled_files(names_in(wheel)) == []


def description(sources: Path) -> Message:
    """Build the metadata of the package; its payload is the long description."""
    code = "from setuptools.build_meta import *; print(prepare_metadata_for_build_wheel('..'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=sources,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    folder = sources.parent / done.stdout.splitlines()[-1]
    return message_from_string((folder / "METADATA").read_text("utf-8"))


def write_address(sources: Path) -> None:
    """Give the project a public address, as CONTRIBUTING.md describes."""
    file = sources / "pyproject.toml"
    text = re.sub(
        r"# (\[project\.urls\]\n)# (Source = ).*", rf'\1\2"{ADDRESS}"', file.read_text("utf-8")
    )
    assert ADDRESS in text
    file.write_text(text, "utf-8")


def test_without_an_address_the_description_is_the_readme(sources: Path) -> None:
    metadata = description(sources)
    assert metadata.get_all("Project-URL") is None
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text("utf-8").strip()


def test_with_an_address_no_relative_link_is_left(sources: Path) -> None:
    before = set(re.findall(r"\]\(([^)]*)\)", (ROOT / "README.md").read_text("utf-8")))
    write_address(sources)
    metadata = description(sources)
    assert metadata.get_all("Project-URL") == [f"Source, {ADDRESS}"]
    file = sources.parent / "description.md"
    file.write_text(str(metadata.get_payload()), "utf-8")
    assert links(file) == []
    after = set(re.findall(r"\]\(([^)]*)\)", str(metadata.get_payload())))
    assert len(after) == len(before)
    assert f"{ADDRESS}/raw/HEAD/docs/images/demo.png" in after
    assert f"{ADDRESS}/blob/HEAD/docs/design.md#what-a-hostile-client-may-cost" in after


def test_the_documentation_links_to_the_address(sources: Path) -> None:
    (sources / "docs").mkdir()
    file = sources / "docs" / "conf.py"
    shutil.copy(ROOT / "docs" / "conf.py", file)
    page = sources / "docs" / "index.md"
    link = re.compile(r"\[(.*)\]\((.*)()\)")
    (sources / "deploy").mkdir()
    for address, followed in ((None, "x"), (ADDRESS, f"[x]({ADDRESS}/blob/HEAD/deploy)")):
        if address is not None:
            write_address(sources)
        names = runpy.run_path(str(file))
        icons = names.get("html_theme_options", {}).get("footer_icons", [])
        assert [icon["url"] for icon in icons] == [address] * (address is not None)
        found = link.fullmatch("[x](../deploy)")
        assert found is not None
        assert names["follow"](found, page, page) == followed


def test_the_sdist_contains_the_repository_and_depends_only_on_its_contents(tmp_path: Path) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        missing_tool("a checkout of wsframe with git")
    listed = subprocess.check_output(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, text=True
    )
    names = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    copy = tmp_path / "copy"
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
        (copy / name).chmod(0o600)
    subprocess.run(
        [sys.executable, "-c", "from setuptools.build_meta import *; build_sdist('..')"],
        cwd=copy,
        env=environment(SOURCE_DATE_EPOCH="1000000000"),
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=120,
    )
    sdist = tmp_path / f"wsframe-{__version__}.tar.gz"
    with tarfile.open(sdist) as archive:
        members = {member.name.partition("/")[2]: member for member in archive}
    assert names <= set(members)
    found = {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members.values()}
    assert found == {(1_000_000_000, 0, 0, "", "")}
    assert {m.mode for m in members.values() if m.isfile()} == {0o644}
    assert sdist.read_bytes()[4:8] == (1_000_000_000).to_bytes(4, "little")  # the time of gzip


ALONE = """
import wsframe
from wsframe.client import connect, events
for url, call in (("http://localhost/", events), ("ws://b\u00fccher.example/", connect)):
    try:
        call(url)
    except ImportError as error:
        print(error)
"""


def test_without_extras_the_codec_works_and_errors_name_the_missing_extra(sources: Path) -> None:
    target = sources.parent / "target"
    done = pip("install", sources, "--target", target, WSFRAME_BUILD_EXT="no")
    assert done.returncode == 0, done.stdout
    # -S hides the packages that are installed here.
    without_stream, without_host = run_installed(target, "-S", "-c", ALONE)
    for line in (without_stream, without_host):
        assert line.endswith("pip install 'wsframe[client]'")


@unix
def test_without_a_compiler_the_install_succeeds_with_a_warning(sources: Path) -> None:
    target = sources.parent / "target"
    done = pip("install", sources, "--target", target, **NO_COMPILER)
    assert done.returncode == 0, done.stdout
    assert WARNING in done.stdout
    assert not list(target.rglob("*.so"))
    check_installed(target, "pure")


@unix
def test_without_a_compiler_the_install_fails_if_the_extension_is_required(sources: Path) -> None:
    target = sources.parent / "target"
    site = sources.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(NO_HEADERS, encoding="utf-8")
    changes = {"WSFRAME_BUILD_EXT": "require", "PYTHONPATH": str(site), **NO_COMPILER}
    done = pip("install", sources, "--target", target, **changes)
    assert done.returncode != 0
    assert "Python.h is missing. Install the header files of Python (python3-dev on" in done.stdout
    assert "/nonexistent/cc" in done.stdout
    assert WARNING not in done.stdout
    assert not (target / "wsframe").exists()


def test_an_invalid_value_of_the_build_variable_is_refused(sources: Path) -> None:
    done = pip("wheel", sources, "-w", sources.parent / "wheels", WSFRAME_BUILD_EXT="yes")
    assert done.returncode != 0
    assert "WSFRAME_BUILD_EXT must be auto, require or no, not 'yes'" in done.stdout


def import_here(**changes: str) -> str:
    """Return ACCELERATED of the tested wsframe in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", "import wsframe; print(wsframe.ACCELERATED)"],
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("value", ["1", "yes", "true"])
def test_the_pure_kernels_can_be_chosen(pure: ModuleType, value: str) -> None:
    assert import_here(WSFRAME_PURE=value) == "False"
    assert pure.kernels.INSTRUCTION_SET == "pure Python"


@pytest.mark.parametrize("changes", [{}, {"WSFRAME_PURE": ""}, {"WSFRAME_PURE": "0"}])
def test_the_compiled_kernels_are_in_use_otherwise(
    compiled: ModuleType, changes: dict[str, str]
) -> None:
    # In CI the fixture ``compiled`` fails if they are not built.
    assert compiled.ACCELERATED
    assert import_here(**changes) == "True"
