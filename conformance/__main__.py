"""Run the reference suite against this package: ``make autobahn``, on Linux and macOS."""

from __future__ import annotations

import argparse
import signal
import sys
from itertools import groupby, product
from pathlib import Path
from time import monotonic

import wsframe

from . import page, suite
from .runs import Run, execute
from .table import failures, table

ROLES = ("server", "client")
KERNELS = ("compiled", "pure")
ALL_CASES = ["*"]


def main() -> None:
    """Run the selected cases, print a table for each run, and exit with 1 if a case is not OK."""
    parser = _parser()
    arguments = parser.parse_args()
    runs = [Run(*pair) for pair in product(arguments.only, arguments.kernels)]
    if arguments.write and (len(runs) < len(ROLES) * len(KERNELS) or arguments.cases != ALL_CASES):
        parser.error(
            "--write requires all roles, kernels and cases; combine it only with --messages"
        )
    if "compiled" in arguments.kernels and not wsframe.ACCELERATED:
        parser.error("the compiled kernels are not available; use --kernels pure")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(f"terminated by signal {number}"))

    suite.install(arguments.python2)
    results = {run: _execute(run, arguments.cases, arguments.messages) for run in runs}
    if arguments.write:
        arguments.write.write_text(page.page(results, arguments.messages))
    bad = {run: failures(cases) for run, cases in results.items()}
    for run, cases in bad.items():
        _print_failures(run, cases)
    if count := sum(map(len, bad.values())):
        sys.exit(f"\n{count} results are not OK")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument(
        "--messages",
        type=int,
        default=50,
        help="messages in each case of sections 12 and 13; 1000 in the suite (%(default)s)",
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        default=ALL_CASES,
        metavar="CASE",
        help='such as "5.*" or 6.4.1; default: all',
    )
    parser.add_argument("--only", nargs=1, choices=ROLES, default=ROLES, help="test only this role")
    parser.add_argument(
        "--kernels", nargs=1, choices=KERNELS, default=KERNELS, help="test only these kernels"
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the results to this page")
    parser.add_argument(
        "--python2", default="python2.7", help="the Python 2.7 interpreter (%(default)s)"
    )
    return parser


def _execute(run: Run, cases: list[str], messages: int) -> list[suite.Result]:
    print(f"\n{run}", end="", flush=True)
    begin = monotonic()
    results = execute(run, cases, messages)
    print(f": {monotonic() - begin:.0f} s; {run.folder / 'index.html'}\n")
    print(table(results), flush=True)
    return results


def _print_failures(run: Run, cases: list[suite.Result]) -> None:
    def verdict(result: suite.Result) -> str:
        return f"{run}: {result.behavior}, close {result.close}. {result.reason}"

    for reason, group in groupby(sorted(cases, key=verdict), verdict):
        print(f"\n{reason}\n    {' '.join(result.case for result in group)}")


if __name__ == "__main__":
    main()
