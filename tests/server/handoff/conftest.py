"""The fixtures that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server.handoff.stepping import Rig
from tests.server.handoff.thread_limits import Attacked


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A running loop."""
    rig = Rig()
    rig.loop.start()
    yield rig
    rig.close()


@pytest.fixture
def attacked() -> Iterator[Attacked]:
    attacked = Attacked()
    yield attacked
    attacked.held.release()
