"""Echo servers side by side: ``make bench-servers``, on Linux; README.md says how it is measured.

In each round the servers take turns in each scenario, every time in a fresh process on one core,
with the load on another. Then come a table for each scenario, and the aims.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import monotonic

from .report import aims_table, scenario_table
from .scenarios import ECHOES, SCENARIOS, Figures
from .serving import LIMIT, LOAD_CORE, SERVER_CORE, SERVERS, BenchError

Results = dict[str, dict[str, list[Figures | None]]]


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="Compare echo servers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each run")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="instead of all")
    parser.add_argument("--server", action="append", choices=SERVERS, help="instead of all")
    parser.add_argument("--chart", type=Path, help="draw the ratios to the limit, as .svg or .png")
    arguments = parser.parse_args()
    if SERVER_CORE == LOAD_CORE:
        sys.exit("The server bench needs two cores.")

    names = arguments.server or SERVERS
    results: Results = {
        key: {name: [] for name in scenario.servers if name in names}
        for key, scenario in SCENARIOS.items()
        if key in (arguments.scenario or SCENARIOS) and {*scenario.servers} & {*names}
    }
    if arguments.chart and not (LIMIT in names and set(results) & set(ECHOES)):
        parser.error(f"a chart needs {LIMIT}, and one of {', '.join(ECHOES)}")
    failures = measure(results, arguments.rounds, arguments.seconds)
    for key, rounds in results.items():
        print("\n" + "\n".join(scenario_table(key, rounds)))
    print("\n" + "\n".join(aims_table(results)))
    if failures:
        print("\nfailed:", *failures, sep="\n")
    if arguments.chart:
        from .chart import draw

        draw(results, arguments.chart)


def measure(results: Results, rounds: int, seconds: float) -> list[str]:
    """Fill the results, saying on stderr what is being done; return what failed."""
    failures = []
    begin = monotonic()
    for number in range(rounds):
        for key, by_server in results.items():
            _say(f"\n{monotonic() - begin:4.0f} s, round {number + 1} of {rounds}, {key}:")
            names = list(by_server)
            first = number % len(names)
            for name in names[first:] + names[:first]:
                _say(f" {name}")
                figures = None
                try:
                    figures = SCENARIOS[key].measure(name, seconds)
                except BenchError as failure:
                    _say(" (failed)")
                    failures.append(f"round {number + 1}, {key}, {name}: {failure}")
                by_server[name].append(figures)
    _say(f"\n{monotonic() - begin:4.0f} s, done\n")
    return failures


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
