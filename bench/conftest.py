"""Fixtures and hooks that collect the measurements, print tables, and write a file on request."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from wsframe import kernels

from .aims import aims_table, group_table, outcomes
from .codecs import LEFT_OUT

RESULTS = pytest.StashKey[dict[str, dict[int, dict[str, float]]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that names the file for the results."""
    parser.addoption(
        "--aims-json", metavar="PATH", help="write the codec's figures and aims to this file"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Create the container for the results."""
    config.stash[RESULTS] = {}


@pytest.fixture
def results(request: pytest.FixtureRequest) -> dict[str, dict[int, dict[str, float]]]:
    """The interleaved medians of the session, by group, size and implementation."""
    return request.config.stash[RESULTS]


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_group_stats(
    config: pytest.Config, benchmarks: Iterable[dict[str, Any]], group_by: str
) -> list[tuple[str, list[dict[str, Any]]]] | None:
    """Keep the groups in the order of their measurement."""
    if group_by != "group":
        return None
    groups: dict[str, list[dict[str, Any]]] = {}
    for each in benchmarks:
        groups.setdefault(each["group"], []).append(each)
    return list(groups.items())


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the tables after pytest-benchmark's."""
    found = config.stash[RESULTS]
    if not found:
        return
    report = terminalreporter
    report.section("codec: medians of interleaved rounds")
    report.line(
        f"kernels: {kernels.INSTRUCTION_SET}; {platform.python_implementation()} "
        f"{platform.python_version()}, {platform.machine()}"
    )
    for line in LEFT_OUT:
        report.line(line)
    for group, by_size in found.items():
        report.line("")
        for line in group_table(group, by_size):
            report.line(line)
    met = list(outcomes(found))
    report.section("codec: aims")
    for line in aims_table(met):
        report.line(line)
    missed = sum(not each.met for each in met)
    report.line(f"{len(met) - missed} met, {missed} missed")

    if path := config.getoption("--aims-json"):
        document = {
            "kernels": kernels.INSTRUCTION_SET,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "unit": "ns per call, or per frame where frames are taken",
            "median": found,
            "aims": [asdict(each) for each in met],
        }
        Path(path).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
