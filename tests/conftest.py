"""Tests with the fixture ``codec`` run on the compiled and on the pure kernels.

The mark ``one_kernel`` is for tests that use no kernel: they run once.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections import Counter
from collections.abc import Generator
from contextlib import nullcontext
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis.strategies import none

from tests.support.measuring import unmeasured
from tests.support.order import mixed
from tests.support.patience import be_patient
from tests.support.tools import load_codec, missing_tool

# The same examples on every run; --hypothesis-profile=explore looks for new ones.
settings.register_profile("same", deadline=None, database=None, derandomize=True, max_examples=60)
settings.register_profile("explore", deadline=None, database=None, max_examples=2000)
settings.load_profile("same")


KERNELS = {
    # Python code runs on both kernels alike, and the pure kernels are more of it.
    "compiled": pytest.param("compiled", marks=pytest.mark.unmeasured),
    "pure": pytest.param("pure"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kernel", choices=KERNELS, help="run nothing on the other kernels")


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until the tests are collected; hardly an object is garbage before
    if config.option.kernel == "pure":
        os.environ["WSFRAME_PURE"] = "1"


def pytest_sessionstart() -> None:
    be_patient()  # before the tests are imported, and after coverage has begun


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "codec" not in metafunc.fixturenames:
        return
    marks = {mark.name for mark in metafunc.definition.iter_markers()}
    if "one_kernel" not in marks or "both_kernels" in marks:
        only = metafunc.config.option.kernel
        kernels = [KERNELS[only]] if only else list(KERNELS.values())
        metafunc.parametrize("codec", kernels, indirect=True, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Measure no coverage in a test with the mark ``unmeasured`` and in its fixtures."""
    with unmeasured() if item.get_closest_marker("unmeasured") else nullcontext():
        return (yield)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.kernel is not None:
        (other,) = set(KERNELS) - {config.option.kernel}
        config.hook.pytest_deselected(items=[item for item in items if uses(item, other)])
        items[:] = [item for item in items if not uses(item, other)]
    if hasattr(config, "workerinput"):  # of pytest-xdist
        items[:] = mixed(items)


def pytest_collection_finish() -> None:
    """Make the collector skip the thousands of tests, which live until the end."""
    # Hypothesis searches the referrers of its random generator at its first test. Python 3.14 does
    # not find frozen ones.
    given(none())(lambda value: None)()
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests were skipped for each reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped: {reason}")


def uses(item: pytest.Item, fixture: str) -> bool:
    """Return True if a test uses this fixture."""
    assert isinstance(item, pytest.Function)
    return fixture in item.fixturenames


@pytest.fixture(scope="session")
def compiled() -> ModuleType:
    """The codec on the compiled kernels."""
    codec = load_codec(pure=False)
    if not codec.ACCELERATED:
        missing_tool("wsframe._kernels (compiled with gcc and python3-dev)")
    return codec


@pytest.fixture(scope="session")
def pure() -> ModuleType:
    """The codec on the pure kernels."""
    codec = load_codec(pure=True)
    assert not codec.ACCELERATED
    return codec


@pytest.fixture(scope="session")
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """The codec, once on each kernel: a copy of the package with all its modules in it."""
    if not hasattr(request, "param"):  # any kernel will do
        importlib.import_module("wsframe.client")
        return importlib.import_module("wsframe")
    fixture: ModuleType = request.getfixturevalue(request.param)
    return fixture
