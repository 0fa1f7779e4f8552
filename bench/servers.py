"""Echo servers side by side: ``make bench-servers``, on Linux; README.md describes the method.

In each round the servers take turns in each scenario, every time in a new process on one core, with
the load on another. Then a table for each scenario and the aims are printed.
"""

from __future__ import annotations

from pathlib import Path

from .rounds import compare, parser_for
from .scenarios import AIMS, CHARTED, SCENARIOS
from .serving import LIMIT


def main() -> None:
    """Measure and print the tables."""
    parser = parser_for("Compare echo servers.", SCENARIOS)
    parser.add_argument("--chart", type=Path, help="draw the ratios to the limit, as .svg or .png")
    arguments = parser.parse_args()
    drawn = set(arguments.scenario or CHARTED) & set(CHARTED)
    if arguments.chart and not (drawn and LIMIT in (arguments.server or (LIMIT,))):
        parser.error(f"a chart needs {LIMIT}, and one of {', '.join(CHARTED)}")
    results = compare(SCENARIOS, AIMS, arguments)
    if arguments.chart:
        from .chart import draw

        draw(results, arguments.chart)


if __name__ == "__main__":
    main()
