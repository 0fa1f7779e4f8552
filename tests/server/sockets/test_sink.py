"""A socket whose data is discarded, and the events that the loop reports for it."""

from __future__ import annotations

import socket

from tests.server.handoff.stepping import Rig
from tests.support.waiting import wait_until
from wsframe.server.handoff.loop import READ
from wsframe.server.sockets.sink import Sink


def test_an_event_without_data_is_ignored() -> None:
    rig = Rig()
    rig.loop.start()
    ours, theirs = socket.socketpair()
    closed: list[Sink] = []

    def begin() -> Sink:
        sink = Sink(theirs, rig.loop, closed.append)
        rig.loop.register(theirs, READ, sink)
        sink.ready(READ)  # the event of a closed file that had the same descriptor
        return sink

    sink = rig.ask(begin)
    assert not closed
    ours.sendall(b"discarded")
    ours.close()
    wait_until(lambda: closed == [sink], "the socket is closed")
    rig.close()
