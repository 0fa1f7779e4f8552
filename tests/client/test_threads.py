"""Many threads on one WebSocket, ends that send at the same time, and waits with timeouts."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import chain
from typing import Any

import pytest

from tests.support.certificates import Certificates
from tests.support.handlers import plain_echo, websocket_app
from tests.support.scripted import Visit
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe import Close, PerMessageDeflate, Ping, Pong

from .conftest import Connect, InThread, Play

LOTS = bytes(1 << 25)  # more than the socket buffers of both ends
THREADS, MESSAGES = 4, 50


def echo(visit: Visit) -> None:
    """Send every message back, and answer pings, until the client closes."""
    while not isinstance(event := visit.next_event(), Close):
        if isinstance(event, Ping):
            visit.send(visit.codec.pong(event.payload))
        else:
            assert isinstance(event, str)
            visit.send_messages(event)
    visit.send(visit.codec.close())


def texts(thread: int) -> list[str]:
    """Return the messages of a thread: short ones, and long ones that resemble those of others."""
    return [f"{thread} {number} " + "abc" * (number**2 * 10) for number in range(MESSAGES)]


# Sending and receiving at once --------------------------------------------------------------------


@pytest.mark.parametrize("secured", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_threads_send_while_threads_receive(
    connect: Connect,
    play: Play,
    in_thread: InThread,
    certificates: Certificates,
    secured: bool,
    compressed: bool,
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade(deflate=PerMessageDeflate() if compressed else None)
        echo(visit)

    server = play(script, tls=certificates.server if secured else None)
    ws = connect(server.url(), ssl=certificates.client)
    assert (ws.deflate is not None) is compressed

    def send(thread: int) -> None:
        for text in texts(thread):
            ws.send(text)

    receiving = [in_thread(list, ws) for _ in range(2)]
    sending = [in_thread(send, thread) for thread in range(THREADS)]
    for sent in sending:
        sent.result(TIMEOUT)
    ws.round_trip()  # all of them were echoed
    ws.close()
    received = [messages.result(TIMEOUT) for messages in receiving]
    expected = [texts(thread) for thread in range(THREADS)]
    assert Counter(chain(*received)) == Counter(chain(*expected))
    for messages in received:
        for thread, sent_texts in enumerate(expected):
            mine = [text for text in messages if text.startswith(f"{thread} ")]
            assert mine == [text for text in sent_texts if text in set(mine)]


@pytest.mark.slow
@pytest.mark.parametrize("secured", [False, True])
def test_two_ends_that_flood_each_other(
    connect: Connect, play: Play, certificates: Certificates, secured: bool
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send_messages(LOTS)  # does not read before the client has received that
        assert visit.next_event() == LOTS
        visit.answer_close()

    server = play(script, tls=certificates.server if secured else None)
    ws = connect(server.url(), ssl=certificates.client, max_message_size=len(LOTS))
    ws.send(LOTS)
    assert ws.receive(TIMEOUT) == LOTS


@pytest.mark.slow
@pytest.mark.parametrize("secured", [False, True])
def test_a_polling_thread_is_woken_for_new_frames(
    connect: Connect, play: Play, in_thread: InThread, certificates: Certificates, secured: bool
) -> None:
    receiving, answered = threading.Event(), threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert receiving.wait(TIMEOUT)
        visit.send(visit.codec.ping())
        assert visit.next_event() == Pong()
        answered.set()
        assert visit.next_event() == LOTS
        visit.send_messages("done")
        visit.answer_close()

    server = play(script, tls=certificates.server if secured else None)
    ws = connect(server.url(), ssl=certificates.client)
    received = in_thread(ws.receive)
    receiving.set()
    assert answered.wait(TIMEOUT)
    ws.send(LOTS)
    assert received.result(TIMEOUT) == "done"


@pytest.mark.slow
@pytest.mark.parametrize("secured", [False, True])
def test_a_receiving_thread_sends_for_others(
    connect: Connect, play: Play, in_thread: InThread, certificates: Certificates, secured: bool
) -> None:
    begun, queued = threading.Event(), threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        first_byte = visit.sock.recv(1)
        begun.set()
        assert queued.wait(TIMEOUT)
        visit.send_messages(LOTS)
        assert visit.codec.receive(first_byte) == []
        assert visit.next_event() == LOTS
        assert isinstance(visit.next_event(), Ping)
        visit.answer_close()

    server = play(script, receive_buffer=1 << 14, tls=certificates.server if secured else None)
    ws = connect(server.url(), ssl=certificates.client, max_message_size=len(LOTS))
    received = in_thread(ws.receive)
    sent = in_thread(ws.send, LOTS)
    assert begun.wait(TIMEOUT)
    with pytest.raises(TimeoutError):
        ws.round_trip(0.05)  # this thread must wait, too
    queued.set()
    assert received.result(TIMEOUT) == LOTS
    assert sent.result(TIMEOUT) is None


# Receiving ----------------------------------------------------------------------------------------


def test_each_message_is_returned_to_one_waiting_thread(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    waiting = threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert waiting.wait(TIMEOUT)
        visit.send_messages(*map(str, range(8)))
        visit.answer_close()

    ws = connect(play(script).url())
    received = [in_thread(ws.receive) for _ in range(8)]
    waiting.set()
    assert sorted(message.result(TIMEOUT) for message in received) == sorted(map(str, range(8)))


@pytest.mark.parametrize("timeout", [-1, 0, 0.05])
def test_receive_times_out(connect: Connect, play: Play, timeout: float) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == "now"
        visit.send_messages("late")
        visit.answer_close()

    ws = connect(play(script).url())
    with pytest.raises(TimeoutError, match=f"no message within {timeout} seconds"):
        ws.receive(timeout)
    ws.send("now")
    assert ws.receive(TIMEOUT) == "late"


def test_a_timeout_of_zero_receives_available_messages(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert asked.wait(TIMEOUT)
        visit.send_messages("one", "two")
        said.set()
        visit.answer_close()

    asked, said = threading.Event(), threading.Event()
    ws = connect(play(script).url())
    asked.set()
    assert said.wait(TIMEOUT)
    assert [ws.receive(0), ws.receive(0)] == ["one", "two"]


def test_a_timeout_of_zero_does_not_disturb_a_waiting_thread(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == "now"
        visit.send_messages("message")
        visit.answer_close()

    ws = connect(play(script).url())
    received = in_thread(ws.receive)
    for _ in range(10):
        with pytest.raises(TimeoutError):
            ws.receive(0)
    ws.send("now")
    assert received.result(TIMEOUT) == "message"


@pytest.mark.slow
def test_another_thread_polls_when_the_polling_thread_times_out(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert receiving.wait(TIMEOUT)
        visit.send(visit.codec.ping())
        assert visit.next_event() == Pong()
        polling.set()
        assert given_up.wait(TIMEOUT)
        visit.send_messages("message")
        visit.answer_close()

    receiving, polling, given_up = threading.Event(), threading.Event(), threading.Event()
    ws = connect(play(script).url())
    impatient = in_thread(ws.receive, 1)
    receiving.set()
    assert polling.wait(TIMEOUT)
    received = in_thread(ws.receive)
    with pytest.raises(TimeoutError):
        impatient.result(TIMEOUT)
    given_up.set()
    assert received.result(TIMEOUT) == "message"


# A full inbox -------------------------------------------------------------------------------------


def flood(visit: Visit) -> None:
    """Send messages that exceed one read each, then answer two pings."""
    visit.upgrade()
    for number in range(4):
        visit.send_messages(bytes([number]) * 100_000)
    for _ in range(2):
        ping = visit.next_event()
        assert isinstance(ping, Ping)
        visit.send(visit.codec.pong(ping.payload))
    visit.answer_close()


@pytest.mark.parametrize("max_queue", [1, 100_000, 300_000])
def test_nothing_is_read_while_the_inbox_is_full(
    connect: Connect, play: Play, max_queue: int
) -> None:
    ws = connect(play(flood).url(), max_queue=max_queue)
    with pytest.raises(TimeoutError, match=r"no pong within 0\.2 seconds"):
        ws.round_trip(0.2)
    assert [ws.receive(TIMEOUT) for _ in range(4)] == [bytes([i]) * 100_000 for i in range(4)]
    assert ws.round_trip() > 0


def test_messages_are_queued_while_the_inbox_has_room(connect: Connect, play: Play) -> None:
    ws = connect(play(flood).url(), max_queue=500_000)
    assert ws.round_trip() > 0
    assert ws.round_trip() > 0
    assert [ws.receive(TIMEOUT) for _ in range(4)] == [bytes([i]) * 100_000 for i in range(4)]


def test_taking_a_message_wakes_the_polling_thread(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    pinged = threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        for number in range(3):
            visit.send_messages(bytes([number]) * 100_000)
        ping = visit.next_event()
        assert isinstance(ping, Ping)
        pinged.set()
        visit.send(visit.codec.pong(ping.payload))
        visit.answer_close()

    ws = connect(play(script).url(), max_queue=1)
    answered = in_thread(ws.round_trip, None)
    assert pinged.wait(TIMEOUT)
    assert [ws.receive(TIMEOUT) for _ in range(3)] == [bytes([i]) * 100_000 for i in range(3)]
    assert answered.result(TIMEOUT) > 0


# Pings --------------------------------------------------------------------------------------------


def test_only_the_last_of_many_pings_are_answered(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        pings = [b"%d" % number for number in range(100)]
        visit.upgrade(first=b"".join(map(visit.codec.ping, pings)))
        assert visit.expect(64) == [Pong(ping) for ping in pings[-64:]]
        assert visit.next_event() == "message"
        visit.answer_close()

    connect(play(script).url()).send("message")


def test_a_pong_answers_the_earlier_pings_too(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.send(visit.codec.pong(b"unsolicited"))
        assert isinstance(visit.next_event(), Ping)
        pinged.set()
        ping = visit.next_event()
        assert isinstance(ping, Ping)
        visit.send(visit.codec.pong(ping.payload))
        visit.answer_close()

    pinged = threading.Event()
    ws = connect(play(script).url())
    first = in_thread(ws.round_trip)
    assert pinged.wait(TIMEOUT)
    assert ws.round_trip() > 0
    assert first.result(TIMEOUT) > 0


def test_a_pong_does_not_answer_the_later_pings(
    connect: Connect, play: Play, in_thread: InThread
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        ping = visit.next_event()
        assert isinstance(ping, Ping)
        pinged.set()
        assert isinstance(visit.next_event(), Ping)
        visit.send(visit.codec.pong(ping.payload))
        assert visit.next_event() == "still open"
        visit.send_messages("yes")
        visit.answer_close()

    pinged = threading.Event()
    ws = connect(play(script).url())
    first = in_thread(ws.round_trip)
    assert pinged.wait(TIMEOUT)
    with pytest.raises(TimeoutError, match=r"no pong within 0\.2 seconds"):
        ws.round_trip(0.2)
    assert first.result(TIMEOUT) > 0
    ws.send("still open")
    assert ws.receive(TIMEOUT) == "yes"


def test_the_end_of_the_connection_ends_a_round_trip(
    connect: Connect, play: Play, codec: Any
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.next_event()
        visit.send(visit.codec.close(4000, "no"))

    ws = connect(play(script).url())
    with pytest.raises(codec.client.websocket.ConnectionClosed, match="4000 no"):
        ws.round_trip()


def test_round_trips_of_many_threads(connect: Connect, serve: Serve, in_thread: InThread) -> None:
    ws = connect(f"ws://127.0.0.1:{serve(websocket_app(plain_echo)).port}/echo")
    took = [in_thread(ws.round_trip) for _ in range(8)]
    assert all(seconds.result(TIMEOUT) > 0 for seconds in took)
