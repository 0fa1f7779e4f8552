"""Rounds in which servers take turns under the same loads."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from time import monotonic

from .comparison import Aim, Figures, Scenario
from .native import program
from .report import aims_table, scenario_table
from .serving import LOAD_CORE, SERVER_CORE, BenchError

# The figures by scenario and server, by round; None for a failed run.
Results = dict[str, dict[str, list[Figures | None]]]


def parser_for(what: str, scenarios: Mapping[str, Scenario]) -> argparse.ArgumentParser:
    """Return a parser for the options of every comparison."""
    servers = dict.fromkeys(
        name for each in scenarios.values() for name in each.servers + each.others
    )
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=0.8, help="duration of each run (%(default)s)"
    )
    parser.add_argument(
        "--scenario", action="append", choices=scenarios, help="only this one; may be repeated"
    )
    parser.add_argument(
        "--server", action="append", choices=servers, help="only this one; may be repeated"
    )
    return parser


def compare(
    scenarios: Mapping[str, Scenario], aims: Iterable[Aim], arguments: argparse.Namespace
) -> Results:
    """Measure with these arguments, print the tables, and return their results."""
    if SERVER_CORE == LOAD_CORE:
        sys.exit("The server benches need two cores.")
    results: Results = {}
    for key, scenario in scenarios.items():
        known = scenario.servers + scenario.others
        names = set(known) & set(arguments.server or scenario.servers)
        if names and key in (arguments.scenario or scenarios):
            results[key] = {name: [] for name in known if name in names}
    if not results:
        sys.exit("None of these servers is part of one of these scenarios.")
    # A missing header is reported here, and not after minutes.
    for key in results:
        program("load_tls" if scenarios[key].tls else "load")
    failures = _measure(scenarios, results, arguments.rounds, arguments.seconds)
    for key, rounds in results.items():
        print("\n" + "\n".join(scenario_table(key, scenarios[key], rounds)))
    print("\n" + "\n".join(aims_table(aims, results)))
    if failures:
        print("\nfailed:", *failures, sep="\n")
    return results


def _measure(
    scenarios: Mapping[str, Scenario], results: Results, rounds: int, seconds: float
) -> list[str]:
    """Fill the results and print the progress on stderr; return a line for each failure."""
    failures = []
    begin = monotonic()
    for number in range(rounds):
        for key, by_server in results.items():
            _print_progress(
                f"\n{monotonic() - begin:4.0f} s, round {number + 1} of {rounds}, {key}:"
            )
            names = list(by_server)
            first = number % len(names)
            for name in names[first:] + names[:first]:
                _print_progress(f" {name}")
                figures = None
                try:
                    figures = scenarios[key].measure(name, seconds)
                except BenchError as failure:
                    _print_progress(" (failed)")
                    failures.append(f"round {number + 1}, {key}, {name}: {failure}")
                by_server[name].append(figures)
    _print_progress(f"\n{monotonic() - begin:4.0f} s, done\n")
    return failures


def _print_progress(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)
