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
    """All attacks by name; those that last, last for so long."""
    found = {
        f"{count} silent clients: {kind}": threads.silent_clients(kind, count)
        for kind in threads.KINDS
        for count in (64, 500, 2000)
    }
    found["abandoned requests"] = threads.abandoned_requests(1000)
    found["streams that were left"] = threads.left_streams(500)
    for size in (0, 1, 64 << 10):
        for rate in (0, 1000, 30_000, 90_000):
            name = f"a reader of {rate // 1000} KB/s and messages of {size} bytes"
            found[name] = topics.slow_reader(rate, size, seconds)
    found["300 streams that read nothing"] = topics.unread_streams(300, 5.0)
    found["many names"] = topics.many_names(20_000)
    found["many subscriptions"] = topics.many_subscriptions(490)
    found["newlines"] = topics.newlines(20)
    found["long paths"] = requests.long_paths(3)
    found["fat heads"] = requests.fat_heads(3)
    found["a log pipe without a reader"] = requests.unread_log(3000)
    found["errors of the protocol, and a log that is published"] = requests.errors_of_the_protocol(
        10_000
    )
    found["publishing from __del__"] = publishing.publishing_from("del", 5000, 10_000)
    found["publishing from a signal handler"] = publishing.publishing_from("signal", 1000, 1000)
    found["publishing from 100 forked children"] = publishing.publishing_from("fork", 100, 100)
    return found


def main() -> None:
    """Attack, print the figures, and exit with 1 if a bound was exceeded."""
    parser = argparse.ArgumentParser(description="Attack the server.")
    parser.add_argument("--seconds", type=float, default=60.0, help="of attacks that last")
    parser.add_argument("names", nargs="*", help="parts of the names; all by default")
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
