"""Run the checks and the load on all servers: ``python -m servers [--seconds 60] [name ...]``."""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import dataclass, field

from . import comparison, load
from .checks import Check, checks
from .form import LONG
from .kinds import KINDS, Kind
from .report import aligned
from .running import (
    MissingError,
    RemovedError,
    Running,
    StartError,
    allow_many_files,
    version_of,
)

# The most printed faults of a server; the first one often causes the others.
PRINTED = 10
HEADER = ("server", "version", "checks", "connections", "compared", "wrong", "errors")


@dataclass
class Result:
    """The results of one server.

    Attributes:
        version: its version.
        passed: the number of passed checks.
        checks: the number of all checks.
        faults: descriptions of everything that failed.
        outcome: the result of the load.
        output: the end of the server's output.
    """

    version: str = ""
    passed: int = 0
    checks: int = 0
    faults: list[str] = field(default_factory=list)
    outcome: load.Outcome = field(default_factory=load.Outcome)
    output: str = ""


def examine(kind: Kind, seconds: float) -> Result:
    """Return the results of a server: all checks, with the load before the last."""
    result = Result()
    try:
        result.version = version_of(kind)
        with Running(kind) as server:
            *most, last = checks(kind)
            for check in most:
                _check(check, server, result)
            result.outcome = load.run(server, seconds)
            result.faults += result.outcome.wrong + result.outcome.errors
            _check(last, server, result)
            result.output = server.output[-3000:]
    except MissingError as error:
        result.faults.append(f"{error} is not installed")
    except StartError as error:
        result.faults.append(str(error))
    return result


def _check(check: Check, server: Running, result: Result) -> None:
    result.checks += 1
    try:
        check(server, LONG)
        result.passed += 1
    except Exception as error:  # errors of the client, too
        result.faults.append(f"{check.__name__}: {type(error).__name__}: {error}")


def table(results: dict[Kind, Result]) -> str:
    """Return the results as lines with aligned columns."""
    rows = [HEADER]
    for kind, result in results.items():
        outcome = result.outcome
        rows.append(
            (
                kind.name,
                result.version,
                f"{result.passed} of {result.checks}",
                f"{outcome.connections:,}",
                f"{outcome.compared:,}",
                str(len(outcome.wrong)),
                str(len(outcome.errors)),
            )
        )
    return "\n".join(aligned(rows, left=2))


def main() -> None:
    """Examine the servers, print a table, and exit with 1 if anything failed."""
    parser = argparse.ArgumentParser(description="Check wsframe.wsgi on many servers.")
    parser.add_argument("--seconds", type=float, default=60.0, help="duration of each load")
    parser.add_argument(
        "names", nargs="*", help="use only servers whose name contains one of these"
    )
    arguments = parser.parse_args()
    # By default SIGTERM would end this process before it has ended the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    allow_many_files()
    results: dict[Kind, Result] = {}
    for kind in KINDS:
        if arguments.names and not any(part in kind.name for part in arguments.names):
            continue
        try:
            results[kind] = result = examine(kind, arguments.seconds)
        except RemovedError as error:
            print(f"{kind.name}: left out, because {error}", flush=True)
            continue
        outcome = "FAILED" if result.faults else "passed"
        print(f"{kind.name}: {outcome}", flush=True)
        for fault in result.faults[:PRINTED]:
            print(f"  {fault}", flush=True)
        if result.faults:
            print(
                f"  {len(result.faults)} faults; the output ends with {result.output}", flush=True
            )
    print(table(results))
    faults = [] if arguments.names else comparison.compare()
    for fault in faults:
        print(f"FAULT  {fault}")
    sys.exit(1 if faults or any(result.faults for result in results.values()) else None)


if __name__ == "__main__":
    main()
