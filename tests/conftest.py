"""Every test that asks for ``codec`` runs twice: on the compiled kernels, and on the pure ones."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import settings

from .tools import load_codec, missing_tool

# The same examples on every run; --hypothesis-profile=explore looks for new ones.
settings.register_profile("same", deadline=None, database=None, derandomize=True)
settings.register_profile("explore", deadline=None, database=None, max_examples=2000)
settings.load_profile("same")


@pytest.fixture(scope="session")
def compiled() -> ModuleType:
    """The codec on the compiled kernels."""
    codec = load_codec(pure=False)
    if not codec.ACCELERATED:
        missing_tool("wsframe._kernels, the compiled half of wsframe,")
    return codec


@pytest.fixture(scope="session")
def pure() -> ModuleType:
    """The codec on the pure kernels."""
    codec = load_codec(pure=True)
    assert not codec.ACCELERATED
    return codec


@pytest.fixture(scope="session", params=["compiled", "pure"])
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """The codec, once on each kernel: a copy of the package with all its modules in it."""
    fixture: ModuleType = request.getfixturevalue(request.param)
    return fixture
