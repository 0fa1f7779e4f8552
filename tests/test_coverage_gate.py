"""The gates of the coverage: lines and branches are compared with one percentage each."""

from __future__ import annotations

import pytest

from tools.coverage_gate import failures


@pytest.mark.parametrize(
    ("lines", "branches", "problems"),
    [
        (100, 50, []),
        (99, 50, ["the tests reach 99.00 % of the lines, the gate is 100.0 %"]),
        (100, 47, ["the tests reach 94.00 % of the branches, the gate is 95.0 %"]),
    ],
)
def test_a_percentage_below_its_gate_is_a_failure(
    lines: int, branches: int, problems: list[str]
) -> None:
    found = {
        "covered_lines": lines,
        "num_statements": 100,
        "covered_branches": branches,
        "num_branches": 50,
    }
    assert failures(found, 100.0, 95.0) == problems
