"""The results of a run as a table in Markdown, with a line for each section of the suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from .suite import Result

SECTIONS = {
    1: "Framing",
    2: "Pings and pongs",
    3: "Reserved bits",
    4: "Opcodes",
    5: "Fragmentation",
    6: "UTF-8",
    7: "Closing",
    9: "Limits and performance",
    10: "Automatic fragmentation",
    12: "Compression: payloads",
    13: "Compression: parameters",
}
BEHAVIORS = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED")
CLOSES = ("OK", "INFORMATIONAL", "FAILED")
HEADER = ("Section", "Cases", *BEHAVIORS, *(f"close {close}" for close in CLOSES))
#: The RFC does not specify the behavior in these cases, so the suite has no other result.
INFORMATIONAL_BY_DESIGN = {"7.1.6", "7.13.1", "7.13.2"}


def table(results: list[Result]) -> str:
    """Return the table, whose last line is the total."""
    rows = [HEADER]
    for section, group in groupby(results, _section):
        rows.append(_row(f"{section} {SECTIONS.get(section, '')}", list(group)))
    rows.append(_row("All", results))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    head, *body = [_line(row, widths) for row in rows]
    return "\n".join([head, _line(rule, widths), *body])


def failures(results: Iterable[Result]) -> list[Result]:
    """Return the cases without the expected result."""
    return [result for result in results if not _is_good(result)]


def _is_good(result: Result) -> bool:
    expected = "INFORMATIONAL" if result.case in INFORMATIONAL_BY_DESIGN else "OK"
    return (result.behavior, result.close) == (expected, expected)


def _section(result: Result) -> int:
    return int(result.case.partition(".")[0])


def _row(title: str, results: list[Result]) -> tuple[str, ...]:
    behaviors = _counts((result.behavior for result in results), BEHAVIORS)
    closes = _counts((result.close for result in results), CLOSES)
    return (title, *map(str, (len(results), *behaviors, *closes)))


def _counts(words: Iterable[str], columns: Sequence[str]) -> list[int]:
    """Return the number for each column; an unknown result counts as FAILED."""
    counter = Counter(word if word in columns else "FAILED" for word in words)
    return [counter[column] for column in columns]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    title, *numbers = cells
    aligned = [title.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])]
    return f"| {' | '.join(aligned)} |"
