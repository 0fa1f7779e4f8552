"""The servers of ``make servers``, with short forms of its checks."""

from __future__ import annotations

import sys

import pytest

from servers.checks import checks
from servers.form import SHORT
from servers.kinds import KINDS, Kind
from servers.running import MissingError, Running
from tests.support.tools import missing_tool

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the servers are examined by /proc"),
]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, id=kind.name) for kind in KINDS if kind.in_tests]
)
def test_every_received_byte_on_a_real_server_is_as_expected(kind: Kind) -> None:
    """One test runs all checks, because a server takes long to start."""
    try:
        running = Running(kind)
    except MissingError as error:
        missing_tool(str(error))
    with running:
        for check in checks(kind):
            try:
                check(running, SHORT)
            except Exception as error:
                error.add_note(f"in the check {check.__name__!r}: {check.__doc__}")
                error.add_note(f"the server has printed:\n{running.output[-3000:]}")
                raise
