"""The page about the last complete run: docs/conformance.md."""

from __future__ import annotations

import platform
import sys
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version

from . import suite
from .runs import Run
from .table import failures, table

PAGE = """\
# Conformance

Autobahn|Testsuite, the reference suite for WebSocket, sends valid and invalid frames to a peer. It
evaluates the peer's frames and the closing handshake. Here it tests an echo server and an echo
client of this package, each on the compiled kernels and on the pure ones.

```console
$ make autobahn                  # minutes: 50 messages in each case of sections 12 and 13
$ make autobahn MESSAGES=1000    # most of an hour: the suite's own number of messages
```

The suite, `autobahntestsuite` from PyPI, is installed unchanged into its own environment. It
requires Python 2.7; set `PYTHON2=` if the interpreter has another name than `python2.7`. The
command lists each case that is not OK, and fails if there are any. The suite's own pages, with
every frame, are then in `build/conformance/`.

The tests of this package do not need the suite: the files named `test_conformance.py` repeat its
most important cases, under its numbers, with their own bytes.

Three cases are *informational*: the suite reports the behavior and accepts any. 7.1.6 sends two
messages, a close frame and a ping at once: wsframe answers the messages, then the close frame, and
ignores the ping. 7.13.1 and 7.13.2 close with the codes 5000 and 65535: wsframe answers 1002.

## The last run

{date}, {messages} messages in each case of sections 12 and 13. autobahntestsuite {suite}; wsframe
{wsframe}; {python} on {system}, zlib {zlib}. {count} results; cases without the expected result:
{bad}.

{tables}

This page is written by `python -m conformance --messages {messages} --write docs/conformance.md`.
"""


def page(results: Mapping[Run, list[suite.Result]], messages: int) -> str:
    """Return the page in Markdown."""
    bad = [f"{run}: {bad.case}" for run, cases in results.items() for bad in failures(cases)]
    return PAGE.format(
        date=datetime.now(UTC).date(),
        messages=messages,
        suite=suite.VERSION,
        wsframe=version("wsframe"),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{sys.platform} ({platform.machine()})",
        zlib=zlib.ZLIB_RUNTIME_VERSION,
        count=sum(map(len, results.values())),
        bad="; ".join(bad) or "none",
        tables="\n\n".join(_section(run, cases) for run, cases in results.items()),
    )


def _section(run: Run, cases: list[suite.Result]) -> str:
    return f"### {str(run).capitalize()}\n\n{table(cases)}"
