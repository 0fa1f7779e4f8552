"""A poller for a test that calls the peers in the place of a loop."""

from __future__ import annotations

from wsframe.server.pure_rounds import send, send_block


class StubPoller:
    """A poller that only sends."""

    send = staticmethod(send)
    send_block = staticmethod(send_block)
