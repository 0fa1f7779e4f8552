"""The order of the tests on several workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.order import mixed


@dataclass
class Item:
    """A stand-in for a collected test."""

    name: str
    path: Path
    slow: bool = False
    fixturenames: list[str] = field(default_factory=list)

    def get_closest_marker(self, name: str) -> str | None:
        return name if name == "slow" and self.slow else None


def test_slow_tests_begin_first_and_the_tests_of_files_alternate() -> None:
    first, second, pages = map(Path, ("test_first.py", "test_second.py", "test_pages.py"))
    items: list[Any] = [
        *(Item(f"first {number}", first) for number in range(4)),
        *(Item(f"second {number}", second) for number in range(2)),
        *(Item(f"slow {number}", second, slow=True) for number in range(2)),
        *(Item(f"page {number}", pages, fixturenames=["browser"]) for number in range(2)),
    ]
    slow, rest = ["slow 0", "slow 1"], ["page 0", "page 1"]
    rest += ["first 0", "second 0", "first 1", "first 2", "second 1", "first 3"]
    assert [item.name for item in mixed(items)] == slow + rest
