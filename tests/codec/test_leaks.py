"""Repeated operations leak no memory; `make leaks` repeats them a million times."""

from __future__ import annotations

from types import ModuleType

import pytest

from soak.leaks import KINDS, traced
from tests.support.memory import in_fresh_process

pytestmark = pytest.mark.slow

BATCH = 1000
# One leaked object per round would exceed this.
NOTHING = 500


@pytest.mark.parametrize("kind", KINDS)
def test_repeated_operations_leak_no_memory(codec: ModuleType, kind: str) -> None:
    assert in_fresh_process(not codec.ACCELERATED, traced, kind, BATCH) < NOTHING
