"""Selected cases of the reference suite over a socket, each sent in one segment."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.cases import CASES, Case, fail_fast, many_fragments
from tests.support.ends import BAD_DATA, CLIENT
from tests.support.scripted import Visit
from tests.support.tools import normals
from wsframe import Close, Event, PerMessageDeflate

from .conftest import Connect, Play


def echo(ws: Any) -> None:
    for message in ws:
        ws.send(message)


def replies(visit: Visit) -> tuple[Any, ...]:
    """Return all bytes up to the client's close frame."""
    events: list[Event] = []
    while not isinstance(event := visit.next_event(), Close):
        events.append(event)
    return (*normals(events), ("Close", event.code))


@pytest.mark.unmeasured
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_server_passes_the_case(connect: Connect, play: Play, case: Case) -> None:
    def send(visit: Visit) -> None:
        visit.upgrade(deflate=PerMessageDeflate())
        visit.send(b"".join(case.wire(CLIENT)))
        assert replies(visit) == case.replies

    deflate = case.deflate is not None and PerMessageDeflate(**case.deflate)
    echo(connect(play(send).url(), deflate=deflate))


@pytest.mark.parametrize("number", fail_fast(CLIENT))
def test_invalid_text_fails_at_its_first_invalid_byte(
    connect: Connect, play: Play, number: str
) -> None:
    def send(visit: Visit) -> None:
        visit.upgrade()
        good, bad = fail_fast(CLIENT)[number]
        visit.send(good)
        visit.send(bad)
        assert replies(visit) == (("Close", BAD_DATA),)

    echo(connect(play(send).url()))


@pytest.mark.slow
@pytest.mark.unmeasured
def test_a_message_of_4_mib_in_65536_fragments_is_received(connect: Connect, play: Play) -> None:
    def send(visit: Visit) -> None:
        visit.upgrade()
        visit.send(many_fragments(CLIENT))
        assert visit.next_event() == b"\xfe" * (1 << 22)

    echo(connect(play(send).url(), max_message_size=1 << 22))
