"""The Python in the pages runs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from tests.support import flask_login
from tests.support.pages import DOCS, ROOT, blocks

# tests/django runs the blocks of the first page in a project, and other tests those of the others.
ELSEWHERE = {DOCS / "django.md", DOCS / "tutorial.md", ROOT / "README.md"}
# Fragments of larger programs use these names.
GIVEN: dict[Path, dict[str, object]] = {
    DOCS / "servers.md": {
        "gevent": SimpleNamespace(signal_handler=lambda *_: None),
        "server": SimpleNamespace(start=lambda: None, stop=lambda: None),
    },
}


@contextmanager
def signals_restored() -> Iterator[None]:
    """Undo changes of the handler of SIGTERM."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def run(page: Path) -> dict[str, Any]:
    """Run the blocks of a page, one after another, and return what they define."""
    names: dict[str, Any] = {"__name__": "page", **GIVEN.get(page, {})}
    for block in blocks("python", pages=(page,)):
        block.run(names)
    return names


@pytest.mark.parametrize(
    "page",
    sorted({block.page for block in blocks("python")} - ELSEWHERE),
    ids=lambda page: page.stem,
)
def test_the_blocks_of_a_page_run_in_order(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flask_login", flask_login)
    with signals_restored():
        for value in run(page).values():
            if isinstance(value, Flask) and "wsframe" in value.extensions:
                value.extensions["wsframe"].stop(0)
