"""The port of a server that restarts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wsframe.testing import ReservedPort


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server that restarts."""
    with ReservedPort() as port:
        yield port
