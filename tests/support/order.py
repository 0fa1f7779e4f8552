"""The order of the tests on several workers, which take one test after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest


def mixed(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return the tests in an order that keeps all cores busy.

    Slow tests begin first, so that none of them runs alone at the end. The tests of a file are
    spread evenly, because they all wait, or they all compute. Tests with a browser are neighbors,
    because a worker shares a browser between consecutive tests of a file.
    """
    files = [(item.get_closest_marker("slow") is None, item.path) for item in items]
    sizes, seen = Counter(files), Counter[object]()
    places = []
    for item, file in zip(items, files, strict=True):
        fast, _ = file
        shares = "browser" in getattr(item, "fixturenames", ())
        places.append((fast, 0.0 if shares else (seen[file] + 0.5) / sizes[file]))
        seen[file] += 1
    order = sorted(range(len(items)), key=places.__getitem__)
    return [items[index] for index in order]
