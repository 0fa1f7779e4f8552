"""The closing handshake (RFC 6455 sections 5.5.1 and 7.1), with its steps in any order.

Two ends are joined by two pipes, whose bytes arrive in any pieces. That nothing depends on the
pieces alone is tested with each part of the codec: for frames in the other tests of
this folder, for compressed messages in ``deflate``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.codec.connection.helpers import SENDING
from tests.codec.connection.test_protocol_errors import RULES, Rule
from tests.support.ends import CLIENT, CONTINUATION, FIN, PING, SERVER, TEXT, End
from tests.support.tools import normals
from tests.support.vectors import CLOSE_CODES_ALLOWED

NO_TAKEOVER = {"server_no_context_takeover": True, "client_no_context_takeover": True}
#: With compression this bit is valid, or causes another failure.
RSV1_RULES = [rule for name, rule in RULES.items() if name.startswith("rsv-4-")]

ROLES = st.sampled_from(["server", "client"])
MESSAGES = st.text(max_size=30) | st.binary(max_size=200) | st.just("compressible " * 20)
COMPRESS = st.sampled_from([None, True, False])
PAYLOADS = st.binary(max_size=125)
CLOSES = st.just((1005, "")) | st.tuples(
    st.sampled_from(CLOSE_CODES_ALLOWED), st.text(max_size=30) | st.just("r" * 123)
)
EVERYTHING = 1 << 62


class Party:
    """One end, and the expected events of the bytes in the pipe to it.

    Attributes:
        events: the received events, in normal form.
        closing: the code and the reason of the sent close frame.
        unasked: True if that was sent before this end received a close frame or a failure.
        over: True once a close frame or a violation is in the pipe; later bytes are ignored.
    """

    peer: Party

    def __init__(self, codec: ModuleType, end: End, deflate: dict[str, Any] | None) -> None:
        settings = None if deflate is None else codec.PerMessageDeflate(**deflate)
        self.end = end
        self.connection = end.connect(codec, deflate=settings)
        self.events: list[Any] = []
        self.closing: tuple[int, str] | None = None
        self.unasked = False
        self.over = False
        self._pipe = b""
        self._arrived = 0
        self._due: list[tuple[int, Any]] = []  # events, each with the byte that completes it

    @property
    def ended_by(self) -> Any:
        """The received Close or Failure, or None."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, tuple) and last[0] in ("Close", "Failure") else None

    def put(self, wire: bytes, *events: Any, seen_at: int | None = None) -> None:
        """Put bytes into the pipe; one of them, by default the last, completes these events."""
        place = self._arrived + len(self._pipe) + (len(wire) if seen_at is None else seen_at)
        self._pipe += wire
        if not self.over:
            self._due += [(place, event) for event in events]

    def put_last(self, wire: bytes, event: Any, seen_at: int | None = None) -> None:
        """Put a close frame or a violation into the pipe."""
        self.put(wire, event, seen_at=seen_at)
        self.over = True

    def receive(self, count: int) -> None:
        """Deliver this number of bytes; each event is returned with its last byte, not before."""
        data, self._pipe = self._pipe[:count], self._pipe[count:]
        self._arrived += len(data)
        events = normals(self.connection.receive(data))
        complete = [event for place, event in self._due if place <= self._arrived]
        assert events == complete
        del self._due[: len(complete)]
        self.events += events


class Closing(RuleBasedStateMachine):
    """Both ends send, close and violate rules; bytes arrive with any delay.

    Args:
        ways: counts the ways in which connections have ended.
    """

    def __init__(
        self, codec: ModuleType, deflate: dict[str, Any] | None, ways: Counter[str]
    ) -> None:
        super().__init__()
        self.codec = codec
        self.deflate = deflate
        self.ways = ways
        self.open()

    def open(self) -> None:
        """Begin a connection."""
        server, client = (Party(self.codec, end, self.deflate) for end in (SERVER, CLIENT))
        server.peer, client.peer = client, server
        self.parties = {"server": server, "client": client}
        self.finished = False

    def say(self, role: str, send: Callable[[Any], bytes], event: Any) -> None:
        """Send from one end, which raises StateError after its close frame."""
        party = self.parties[role]
        if party.closing is None:
            party.peer.put(send(party.connection), event)
        else:
            with pytest.raises(self.codec.StateError):
                send(party.connection)

    @rule(role=ROLES, messages=st.lists(st.tuples(MESSAGES, COMPRESS), min_size=1, max_size=3))
    def send_messages(self, role: str, messages: list[tuple[str | bytes, bool | None]]) -> None:
        for message, compress in messages:
            self.say(role, methodcaller("encode", message, compress=compress), message)

    @rule(role=ROLES, payload=PAYLOADS)
    def send_a_ping(self, role: str, payload: bytes) -> None:
        self.say(role, methodcaller("ping", payload), ("Ping", payload))

    @rule(role=ROLES, payload=PAYLOADS)
    def send_a_pong(self, role: str, payload: bytes) -> None:
        self.say(role, methodcaller("pong", payload), ("Pong", payload))

    @rule(role=ROLES, text=st.text(max_size=30), payload=PAYLOADS)
    def send_a_message_in_fragments(self, role: str, text: str, payload: bytes) -> None:
        other = self.parties[role].peer
        data = text.encode()
        middle = len(data) // 2
        other.put(other.end.wire(TEXT, data[:middle]))
        other.put(other.end.wire(PING, payload), ("Ping", payload))
        other.put(other.end.wire(FIN | CONTINUATION, data[middle:]), text)

    @precondition(lambda self: not self.finished)
    @rule(role=ROLES, close=CLOSES, inside_a_message=st.booleans())
    def close(self, role: str, close: tuple[int, str], inside_a_message: bool) -> None:
        party = self.parties[role]
        if party.closing is not None:
            with pytest.raises(self.codec.StateError):
                party.connection.close(*close)
            return
        if inside_a_message:
            party.peer.put(party.peer.end.wire(TEXT, b"begun"))
        party.closing, party.unasked = close, party.ended_by is None
        party.peer.put_last(party.connection.close(*close), ("Close", *close))

    @precondition(lambda self: not any(party.closing for party in self.parties.values()))
    @rule(closes=st.tuples(CLOSES, CLOSES))
    def close_at_once(self, closes: tuple[tuple[int, str], tuple[int, str]]) -> None:
        for role, close in zip(self.parties, closes, strict=True):
            self.close(role, close, False)

    @precondition(lambda self: not any(party.over for party in self.parties.values()))
    @rule(role=ROLES, close=CLOSES, inside_a_message=st.booleans())
    def close_and_be_answered(
        self, role: str, close: tuple[int, str], inside_a_message: bool
    ) -> None:
        """Close in consecutive steps, which Hypothesis rarely chooses one by one."""
        self.close(role, close, inside_a_message)
        self.finish()
        self.open()

    @precondition(lambda self: any(party.ended_by for party in self.parties.values()))
    @rule(role=ROLES)
    def answer(self, role: str) -> None:
        """Answer as a program does: a close frame with its code, a violation with its failure."""
        party = self.parties[role]
        match party.ended_by:
            case ("Close", code, _) if party.closing is None:
                self.close(role, (code, ""), False)
            case ("Failure", code, reason) if party.closing is None:
                self.close(role, (code, reason), False)

    @precondition(lambda self: not self.finished)
    @rule(role=ROLES, broken=st.sampled_from(sorted(RULES)))
    def break_a_rule(self, role: str, broken: str) -> None:
        other = self.parties[role].peer
        wrong: Rule = RULES[broken]
        if self.deflate is not None and wrong in RSV1_RULES:
            return
        other.put(wrong.before(other.end.peer_key), *wrong.events)
        failure = ("Failure", wrong.code, wrong.reason)
        other.put_last(wrong.wrong(other.end.peer_key), failure, wrong.seen_at)

    @precondition(lambda self: not any(party.over for party in self.parties.values()))
    @rule(role=ROLES, broken=st.sampled_from(sorted(RULES)))
    def break_a_rule_and_be_answered(self, role: str, broken: str) -> None:
        """Fail in consecutive steps, as in :meth:`close_and_be_answered`."""
        self.break_a_rule(role, broken)
        if any(party.over for party in self.parties.values()):
            self.finish()
            self.open()

    @precondition(lambda self: any(party.over for party in self.parties.values()))
    @rule(noise=st.binary(max_size=40))
    def send_anything_after_the_end(self, noise: bytes) -> None:
        for party in self.parties.values():
            if party.over:
                party.put(noise)

    @rule(role=ROLES, count=st.integers(1, 20) | st.integers(1, 500))
    def deliver_a_piece(self, role: str, count: int) -> None:
        self.parties[role].receive(count)

    @rule(role=ROLES)
    def deliver_everything(self, role: str) -> None:
        self.parties[role].receive(EVERYTHING)

    @precondition(
        lambda self: not self.finished and any(party.over for party in self.parties.values())
    )
    @rule()
    def finish(self) -> None:
        """Deliver and answer all bytes; both ends have closed, and each has the other's code."""
        for _ in range(3):
            for role, party in self.parties.items():
                party.receive(EVERYTHING)
                self.answer(role)
        ends = [party.ended_by for party in self.parties.values()]
        for party, end in zip(self.parties.values(), ends, strict=True):
            assert party.connection.close_sent
            assert party.peer.closing is not None
            assert end[0] == "Failure" or end == ("Close", *party.peer.closing)
            for send in SENDING.values():
                with pytest.raises(self.codec.StateError):
                    send(party.connection)
        self.finished = True
        if "Failure" in (name for name, *_ in ends):
            self.ways["failed"] += 1
        else:
            unasked = [party.unasked for party in self.parties.values()]
            self.ways["crossed" if all(unasked) else "answered"] += 1

    @precondition(lambda self: self.finished)
    @rule()
    def open_another(self) -> None:
        self.open()

    @invariant()
    def both_know_where_they_are(self) -> None:
        for party in self.parties.values():
            connection = party.connection
            assert connection.close_sent == (party.closing is not None)
            assert connection.close_received == ((party.ended_by or "?")[0] == "Close")


@pytest.mark.slow
@pytest.mark.unmeasured
@pytest.mark.parametrize("deflate", [None, {}, NO_TAKEOVER], ids=["plain", "context", "no-context"])
def test_the_closing_handshake(codec: ModuleType, deflate: dict[str, Any] | None) -> None:
    ways: Counter[str] = Counter()
    machine: Any = partial(Closing, codec, deflate, ways)
    # With fewer steps than usual, because one walk contains several connections.
    run_state_machine_as_test(machine, settings=settings(stateful_step_count=25))
    assert min(ways[way] for way in ("answered", "crossed", "failed")) >= 10, ways
