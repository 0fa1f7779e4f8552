"""The code of docs/testing.md, and the example."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import can_vanish
from tests.support.pages import DOCS, ROOT, blocks
from tests.support.processes import run
from wsframe.testing import TIMEOUT

BLOCKS = blocks("python", pages=(DOCS / "testing.md",))


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """Run all blocks, and return the names that they define."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in BLOCKS:
        block.run(names)
    return names


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=can_vanish if "vanishes" in name else ())
        for block in BLOCKS
        for name in re.findall(r"def (test_\w+)", block.code)
    ],
)
def test_a_test_of_the_page_passes(
    name: str, names: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    code = names[name].__code__
    fixtures = code.co_varnames[: code.co_argcount]
    names[name](*map(request.getfixturevalue, fixtures))


def test_the_page_has_these_blocks(names: dict[str, Any]) -> None:
    assert len(BLOCKS) == 6
    assert names["pytest_plugins"] == ["wsframe.testing.fixtures"]


@pytest.mark.slow
@pytest.mark.unmeasured
def test_the_example_passes_as_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("chat.py", "chat.html", "test_chat.py"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], tmp_path)
    assert "3 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.unmeasured
def test_the_package_requires_neither_pytest_nor_the_server() -> None:
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('pytest', 'httptools', 'h11')))\n"
        "from wsframe.testing import *\n"
        "pair = Pair()\n"
        "pair.client.send('hello')\n"
        "assert pair.server.expect(1) == ['hello']\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=TIMEOUT)
