"""Messages in parts: received ones are those of ``receive``, and sent ones are received."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from tests.support.tools import joined, normals

from .connection import LIMITS, Frames, Window, check_kept, connect, message
from .inputs import Codecs, Draw


def check_stream(codecs: Codecs, data: bytes) -> None:
    """Receive frames or arbitrary bytes, whole and in parts."""
    draw = Draw(data)
    settings = draw.settings() if draw.flag() else None
    options = {"deflate": settings, "max_message_size": draw.one_of(LIMITS)}
    least = draw.one_of((1, 2, 100))
    if draw.flag():
        role, chunks = draw.one_of(("server", "client")), draw.chunks(draw.data())
    else:
        stream = Frames(draw, compressed=settings is not None).stream()
        role, chunks = stream.role, stream.chunks()
        options = {**options, "max_message_size": stream.limit, "max_fragments": stream.fragments}
    for codec in codecs:
        whole, in_parts = (connect(codec, role, options) for _ in range(2))
        expected: list[Any] = []
        events: list[Any] = []
        for chunk in chunks:
            expected += whole.receive(chunk)
            buffer = bytearray(chunk)
            events += in_parts.receive_parts(memoryview(buffer), min_size=least)
            buffer[:] = b"\xaa" * len(buffer)  # a caller may reuse the buffer
            assert whole.incomplete == in_parts.incomplete
            check_unfinished(codec, in_parts, events, least)
        assert joined(events) == normals(expected)
        for event in events:
            if isinstance(event, codec.Part) and not event.final:
                size = len(event.data.encode() if isinstance(event.data, str) else event.data)
                assert least <= size <= options["max_message_size"]


def check_unfinished(codec: ModuleType, connection: Any, events: list[Any], least: int) -> None:
    """Check that little is kept of an incomplete message, and that receive() refuses it."""
    last = next((e for e in reversed(events) if isinstance(e, (str, bytes, codec.Part))), None)
    if isinstance(last, codec.Part) and not last.final and not connection.close_received:
        if isinstance(events[-1], codec.Failure):
            return
        assert len(connection._message) < least + 3
        try:
            connection.receive(b"")
        except codec.StateError:
            return
        raise AssertionError("receive() has continued a message in parts")
    check_kept(connection, 1 << 20)


def check_talk(codecs: Codecs, data: bytes) -> None:
    """Check that one end receives the parts of the other, with any agreed compression."""
    draw = Draw(data)
    role = draw.one_of(("server", "client"))
    options = {"deflate": draw.settings() if draw.number(3) < 3 else None}
    messages = [
        ([message(draw) for _ in range(draw.number(3))], draw.one_of((None, True, False)))
        for _ in range(draw.number(5))
    ]
    for codec in codecs:
        talk(codec, role, options, messages, Draw(data))


def talk(
    codec: ModuleType,
    role: str,
    options: dict[str, Any],
    messages: list[tuple[list[str | bytes], bool | None]],
    draw: Draw,
) -> None:
    """Send the messages to the other end, most of them in parts."""
    ours = connect(codec, role, options)
    theirs = connect(codec, "client" if role == "server" else "server", options)
    window = Window(codec, role, options["deflate"])
    for parts, compress in messages:
        same: list[Any] = [part for part in parts if type(part) is type(parts[0])]
        whole: Any = same[0][:0].join(same) if same else "whole"
        if not same:
            wires = [ours.encode(whole, compress=compress)]
            window.check(wires[0], whole)
        else:
            wires = list(ours.encode_parts(same, compress=compress))
            window.check(as_one_frame(codec, wires, role == "client"), whole)
        wires.insert(draw.number(len(wires)), ours.ping())
        chunks = [chunk for wire in wires for chunk in draw.chunks(wire)]
        receive = draw.one_of((theirs.receive, theirs.receive_parts))
        events = [event for chunk in chunks for event in receive(chunk)]
        assert [event for event in joined(events) if event != ("Ping", b"")] == [whole]


def as_one_frame(codec: ModuleType, wires: list[bytes], masked: bool) -> bytes:
    """Return one frame with the payloads of all."""
    first, payload = 0, b""
    for wire in wires:
        byte, part, end = codec.kernels.take_frame(wire, 0, 1 << 30, masked)
        assert end == len(wire)
        first, payload = first or byte, payload + part
    key = b"key!" if masked else None
    frame: bytes = codec.encode_frame(first & 0x0F, payload, rsv=first >> 4 & 7, masking_key=key)
    return frame
