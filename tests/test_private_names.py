"""Tests depend on behaviour: few of them use private names of the package, or replace constants."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unmeasured

TESTS = Path(__file__).parent

# How many uses remain outside tests/support/inspection.py; only lower it.
REMAINING = 1

# The private names of the package, except those of its two implementations of the kernels.
PRIVATE = {
    name
    for path in (TESTS.parent / "src").rglob("*.py")
    for name in re.findall(r"\b_[a-z]\w*", path.read_text(encoding="utf-8"))
} - {"_exit", "_getframe", "_pure", "_kernels"}


def private_uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each use of a private name, and of each replaced constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if is_private(node.attr) and owner not in ("self", "cls"):
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if is_private(alias.name):
                    yield node.lineno, alias.name
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "setattr":
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    name = argument.value.rpartition(".")[2]
                    if is_private(name) or name.isupper():
                        yield node.lineno, name


def is_private(name: str) -> bool:
    """Return True for a private name of the package."""
    return name in PRIVATE


@pytest.mark.slow
def test_no_more_private_names_are_used_than_remain() -> None:
    uses = [
        f"{path.relative_to(TESTS.parent)}:{line}: {name}"
        for path in sorted(TESTS.rglob("*.py"))
        if path.name != "inspection.py"
        for line, name in private_uses(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert len(uses) <= REMAINING, "\n".join(["", *uses])


def test_private_names_and_replaced_constants_are_counted() -> None:
    source = """
self._own, other._sock, other.__class__
monkeypatch.setattr(module, "CONSTANT", 1)
monkeypatch.setattr(module, "function", 1)
monkeypatch.setattr("package.module._fields", 1)
"""
    assert sorted(private_uses(ast.parse(source))) == [
        (2, "_sock"),
        (3, "CONSTANT"),
        (5, "_fields"),
    ]
