"""Run the attacks: ``python -m attack [--seconds 60] [name ...]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from time import monotonic

from . import publishing, requests, threads, topics
from .peers import RefusedError, allow_many_files
from .report import Report


def attacks(seconds: float) -> dict[str, Callable[[Report], None]]:
    """Return all attacks by name; ``seconds`` is the duration of the slow-reader attacks."""
    all_attacks = {
        f"{count} silent clients: {kind}": threads.silent_clients(kind, count)
        for kind in threads.KINDS
        for count in (64, 500, 2000)
    }
    all_attacks["abandoned requests"] = threads.abandoned_requests(1000)
    all_attacks["abandoned streams"] = threads.abandoned_streams(500)
    for size in (0, 1, 64 << 10):
        for rate in (0, 1000, 30_000, 90_000):
            name = f"a reader of {rate // 1000} KB/s and messages of {size} bytes"
            all_attacks[name] = topics.slow_reader(rate, size, seconds)
    all_attacks["300 streams that read nothing"] = topics.unread_streams(300, 5.0)
    all_attacks["many names"] = topics.many_names(20_000)
    all_attacks["many subscriptions"] = topics.many_subscriptions(490)
    all_attacks["newlines"] = topics.newlines(20)
    all_attacks["long paths"] = requests.long_paths(3)
    all_attacks["fat heads"] = requests.fat_heads(3)
    all_attacks["a log pipe without a reader"] = requests.unread_log(3000)
    all_attacks["protocol errors with a published log"] = requests.protocol_errors(10_000)
    all_attacks["publishing from __del__"] = publishing.publishing_from("del", 5000, 10_000)
    all_attacks["publishing from a signal handler"] = publishing.publishing_from(
        "signal", 1000, 1000
    )
    all_attacks["publishing from 100 forked children"] = publishing.publishing_from(
        "fork", 100, 100
    )
    return all_attacks


def main() -> None:
    """Run the attacks, print the figures, and exit with 1 if a bound was exceeded."""
    parser = argparse.ArgumentParser(description="Attack the server.")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="duration of each slow-reader attack"
    )
    parser.add_argument(
        "names", nargs="*", help="run only attacks whose name contains one of these"
    )
    arguments = parser.parse_args()
    allow_many_files()
    faults = 0
    for name, attack in attacks(arguments.seconds).items():
        if arguments.names and not any(part in name for part in arguments.names):
            continue
        report, begin = Report(), monotonic()
        try:
            attack(report)
        except (OSError, ValueError, LookupError, RefusedError) as error:
            report.check(f"the server answers ({type(error).__name__}: {error})", fulfilled=False)
        print(f"{name}  ({monotonic() - begin:.1f} s)")
        for line in report.lines:
            print(f"  {'FAULT  ' if line in report.faults else ''}{line}", flush=True)
        faults += len(report.faults)
    sys.exit(f"{faults} faults" if faults else None)


if __name__ == "__main__":
    main()
