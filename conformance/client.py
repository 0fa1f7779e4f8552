"""The client under test: ``python -m conformance.client URL`` goes through all cases."""

from __future__ import annotations

import sys
import traceback

from wsframe import PerMessageDeflate
from wsframe.client import connect

from . import AGENT, MAX_MESSAGE_SIZE


def main(url: str) -> None:
    """Get the number of cases, echo in each case, and make the suite write its reports."""
    with connect(f"{url}/getCaseCount") as ws:
        count = int(ws.receive())
    for case in range(1, count + 1):
        try:
            echo(f"{url}/runCase?case={case}&agent={AGENT}")
        except Exception:
            traceback.print_exc()  # the suite reports on the case nevertheless
    with connect(f"{url}/updateReports?agent={AGENT}") as ws:
        for _ in ws:
            pass


def echo(url: str) -> None:
    """Send every message back."""
    deflate = PerMessageDeflate(min_size=0)
    with connect(url, deflate=deflate, max_message_size=MAX_MESSAGE_SIZE) as ws:
        for message in ws:
            ws.send(message)


if __name__ == "__main__":
    main(sys.argv[1])
