"""Whatever is done often leaves no memory behind; `make leaks` does it a million times."""

from __future__ import annotations

from types import ModuleType

import pytest

from soak.leaks import KINDS, traced
from tests.support.memory import in_fresh_process

BATCH = 2000
# One object, left behind by one of the things that a kind does in turn, is more than this.
NOTHING = 500


@pytest.mark.parametrize("kind", KINDS)
def test_memory_stays_as_it_is(codec: ModuleType, kind: str) -> None:
    assert in_fresh_process(not codec.ACCELERATED, traced, kind, BATCH) < NOTHING
