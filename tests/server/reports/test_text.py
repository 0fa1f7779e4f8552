"""Untrusted text in the log."""

from __future__ import annotations

from wsframe.server.reports.text import block


def test_the_middle_of_a_long_block_is_cut_out() -> None:
    lines = [f"line {number}" for number in range(100)]
    text = block("\n".join(lines), limit=60)
    assert text.splitlines()[0].strip() == "line 0"
    assert text.splitlines()[-1].strip() == "line 99"
    assert "...(+" in text
    assert len(text) < 200
