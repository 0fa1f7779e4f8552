"""Server-sent events: encoding and decoding (WHATWG HTML section 9.2)."""

from __future__ import annotations

import array
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.one_kernel

# The fields of ServerSentEvent other than data, in order.
Decoded = tuple[str, str | None, str | None, int | None]


def fields(event: Any) -> Decoded:
    return event.data, event.event, event.id, event.retry


def decode(decoder: Any, data: bytes, cuts: Iterable[int] = ()) -> list[Decoded]:
    events: list[Any] = []
    begin = 0
    for end in (*cuts, len(data)):
        events += decoder.receive(data[begin:end])
        begin = end
    return [fields(event) for event in events]


def decode_both_ways(codec: ModuleType, stream: bytes) -> list[Decoded]:
    """Return the events of the stream; they must be the same in one piece and byte by byte."""
    whole = decode(codec.EventStreamDecoder(), stream)
    assert decode(codec.EventStreamDecoder(), stream, range(1, len(stream))) == whole
    return whole


def plain(*data: str) -> list[Decoded]:
    return [(item, None, None, None) for item in data]


# Writing ------------------------------------------------------------------------------------------


def test_an_event_byte_for_byte(codec: ModuleType) -> None:
    assert codec.ServerSentEvent("hello").encode() == b"data: hello\n\n"
    assert codec.ServerSentEvent("").encode() == b"data: \n\n"
    event = codec.ServerSentEvent("grün", event="tick", id="42", retry=1500)
    assert event.encode() == b"event: tick\nid: 42\nretry: 1500\ndata: gr\xc3\xbcn\n\n"
    assert codec.ServerSentEvent("x", event="", id="", retry=0).encode() == (
        b"event: \nid: \nretry: 0\ndata: x\n\n"
    )


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"], ids=["LF", "CR", "CRLF"])
def test_every_line_of_the_data_has_a_field(codec: ModuleType, end: str) -> None:
    data = end.join(["one", "", "two", ""])
    assert codec.ServerSentEvent(data).encode() == b"data: one\ndata: \ndata: two\ndata: \n\n"


def test_line_endings_may_be_mixed(codec: ModuleType) -> None:
    wire = codec.ServerSentEvent("a\r\n\nb\r\rc\n\rd").encode()
    assert wire == b"data: a\ndata: \ndata: b\ndata: \ndata: c\ndata: \ndata: d\n\n"


NO_ENDS = ["\u2028", "\u2029", "\u0085", "\v", "\f", "\x1c", "\x1d", "\x1e", "\0", "\ufeff", "\t"]


@pytest.mark.parametrize("character", NO_ENDS, ids=ascii)
def test_other_separators_stay_in_the_data(codec: ModuleType, character: str) -> None:
    data = f"a{character}b{character}"
    wire = codec.ServerSentEvent(data).encode()
    assert wire == b"data: " + data.encode() + b"\n\n"
    assert decode_both_ways(codec, wire) == plain(data)


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "\n", "a\r\ndata: forged"])
@pytest.mark.parametrize("name", ["event", "id"])
def test_a_field_cannot_be_forged(codec: ModuleType, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"^an event's {name} must not contain CR, LF or NUL: "):
        codec.ServerSentEvent("x", **{name: value})


def test_retry_must_not_be_negative(codec: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"^retry must be at least 0, not -1$"):
        codec.ServerSentEvent("x", retry=-1)


def test_text_with_a_lone_surrogate_is_an_error(codec: ModuleType) -> None:
    with pytest.raises(UnicodeEncodeError):
        codec.ServerSentEvent("\ud800").encode()


def test_an_event_is_immutable(codec: ModuleType) -> None:
    event = codec.ServerSentEvent("x")
    with pytest.raises(AttributeError):
        event.id = "a\nb"
    assert event == codec.ServerSentEvent("x")
    assert event != codec.ServerSentEvent("x", id="1")


def test_comments(codec: ModuleType) -> None:
    encode_comment = codec.sse.encode_comment
    assert encode_comment() == b": \n\n"
    assert encode_comment("still here") == b": still here\n\n"
    assert encode_comment("a\nb\r\nc\rd") == b": a\n: b\n: c\n: d\n\n"
    wire = encode_comment("a\ndata: x\n\nid: 1") + b"data: y\n\n" + encode_comment()
    assert decode_both_ways(codec, wire) == plain("y")


# The examples of section 9.2.6 --------------------------------------------------------------------


def test_example_of_three_lines(codec: ModuleType) -> None:
    stream = b"data: YHOO\ndata: +2\ndata: 10\n\n"
    assert decode_both_ways(codec, stream) == plain("YHOO\n+2\n10")


def test_example_of_comments_and_ids(codec: ModuleType) -> None:
    stream = (
        b": test stream\n\n"
        b"data: first event\nid: 1\n\n"
        b"data:second event\nid\n\n"
        b"data:  third event\n\n"
    )
    assert decode_both_ways(codec, stream) == [
        ("first event", None, "1", None),
        ("second event", None, None, None),
        (" third event", None, None, None),
    ]
    decoder = codec.EventStreamDecoder()
    decode(decoder, stream[: stream.index(b"data:second")])
    assert decoder.last_event_id == "1"
    decode(decoder, stream[stream.index(b"data:second") :])
    assert decoder.last_event_id == ""


def test_example_of_empty_data(codec: ModuleType) -> None:
    # The last block is discarded, because no blank line follows it.
    assert decode_both_ways(codec, b"data\n\ndata\ndata\n\ndata:") == plain("", "\n")


def test_example_of_the_space_after_the_colon(codec: ModuleType) -> None:
    assert decode_both_ways(codec, b"data:test\n\ndata: test\n\n") == plain("test", "test")


def test_example_of_types(codec: ModuleType) -> None:
    # Section 9.2.2
    stream = b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\ndata: 1\n\n"
    assert decode_both_ways(codec, stream) == [
        ("73857293", "add", None, None),
        ("2153", "remove", None, None),
        ("1", None, None, None),
    ]


# Lines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"], ids=["LF", "CR", "CRLF"])
def test_lines_end_in_any_of_three_ways(codec: ModuleType, end: str) -> None:
    lines = ["data: a", "data: b", "", "id: 1", "data: c", "", "", ": x", "data: d", "", ""]
    expected = [("a\nb", None, None, None), ("c", None, "1", None), ("d", None, "1", None)]
    assert decode_both_ways(codec, end.join(lines).encode()) == expected


def test_line_endings_may_be_mixed_in_a_stream(codec: ModuleType) -> None:
    stream = b"data: a\r\ndata: b\rdata: c\n\r\ndata: d\r\r\ndata: e\n\rdata: f\r\n\n"
    assert decode_both_ways(codec, stream) == plain("a\nb\nc", "d", "e", "f")


def test_a_line_feed_in_the_next_read_belongs_to_its_carriage_return(codec: ModuleType) -> None:
    decoder = codec.EventStreamDecoder()
    assert decode(decoder, b"data: a\r") == []
    assert decode(decoder, b"") == []
    assert decode(decoder, b"\ndata: b\r") == []
    assert decode(decoder, b"\r") == plain("a\nb")
    assert decode(decoder, b"\n") == []
    assert decode(decoder, b"data: c\n\n") == plain("c")
    assert decode(decoder, b"\n") == []


def test_an_event_is_returned_at_the_first_byte_of_its_blank_line(codec: ModuleType) -> None:
    decoder = codec.EventStreamDecoder()
    assert decode(decoder, b"data: a\r\n") == []
    assert decode(decoder, b"\r") == plain("a")


def test_one_byte_order_mark_at_the_start_is_skipped(codec: ModuleType) -> None:
    mark = "\ufeff".encode()
    assert decode_both_ways(codec, mark + b"data: a\n\n") == plain("a")
    assert decode_both_ways(codec, mark + mark + b"data: a\n\ndata: b\n\n") == plain("b")
    assert decode_both_ways(codec, b"data: a\n\n" + mark + b"data: b\n\n") == plain("a")
    assert decode_both_ways(codec, b"\n" + mark + b"data: b\n\n") == []


def test_a_byte_order_mark_alone_in_its_read(codec: ModuleType) -> None:
    stream = "\ufeffdata: a\n\n".encode()
    assert decode(codec.EventStreamDecoder(), stream, [3]) == plain("a")


def test_bytes_that_are_not_utf_8_are_replaced(codec: ModuleType) -> None:
    stream = b"data: a\xffb\n\ndata: \xf0\x9f\x98\n\ndata: \xed\xa0\x80\n\ndata: gr\xc3\xbcn\n\n"
    expected = plain("a\ufffdb", "\ufffd", "\ufffd\ufffd\ufffd", "grün")
    assert decode_both_ways(codec, stream) == expected


# Fields -------------------------------------------------------------------------------------------


def test_other_fields_and_comments_are_ignored(codec: ModuleType) -> None:
    stream = (
        b":\n: data: x\ndatum: x\nData: x\n data: x\ndata : x\nxdata: x\nfoo\n:data\n"
        b"data: right\n\n"
    )
    assert decode_both_ways(codec, stream) == plain("right")


def test_only_the_first_colon_separates_field_and_value(codec: ModuleType) -> None:
    assert decode_both_ways(codec, b"data: a: b:c\n\ndata::\n\n") == plain("a: b:c", ":")


def test_only_one_space_is_removed(codec: ModuleType) -> None:
    assert decode_both_ways(codec, b"data:  a \n\ndata:\ta\n\ndata: \n\n") == plain(
        " a ", "\ta", ""
    )


def test_an_event_without_data_is_discarded(codec: ModuleType) -> None:
    # Its type is discarded, too.
    stream = b"event: a\n\ndata: x\n\nid: 1\nretry: 5\n\n\n\n"
    assert decode_both_ways(codec, stream) == plain("x")


def test_the_last_type_counts(codec: ModuleType) -> None:
    stream = b"event: a\nevent: b\ndata: x\n\nevent: a\nevent\ndata: y\n\n"
    assert decode_both_ways(codec, stream) == [("x", "b", None, None), ("y", None, None, None)]


def test_an_id_is_valid_until_the_next(codec: ModuleType) -> None:
    decoder = codec.EventStreamDecoder()
    stream = b"id: 1\ndata: a\n\ndata: b\n\nid: 2\n\ndata: c\n\nid:\ndata: d\n\n"
    assert decode(decoder, stream) == [
        ("a", None, "1", None),
        ("b", None, "1", None),
        ("c", None, "2", None),
        ("d", None, None, None),
    ]


def test_the_last_event_id_is_updated_at_the_end_of_an_event(codec: ModuleType) -> None:
    decoder = codec.EventStreamDecoder()
    assert decoder.last_event_id == ""
    decode(decoder, b"id: 1\ndata: a\n")
    assert decoder.last_event_id == ""
    decode(decoder, b"\nid: 2\n")
    assert decoder.last_event_id == "1"
    decode(decoder, b"\n")
    assert decoder.last_event_id == "2"


def test_an_id_with_a_nul_is_ignored(codec: ModuleType) -> None:
    stream = b"id: 1\nid: 2\0\ndata: a\n\nid: \0\ndata: b\n\n"
    assert decode_both_ways(codec, stream) == [("a", None, "1", None), ("b", None, "1", None)]


def test_a_nul_in_a_type_or_in_data(codec: ModuleType) -> None:
    stream = b"event: a\0b\ndata: c\0d\n\n"
    assert decode_both_ways(codec, stream) == [("c\0d", "a\ufffdb", None, None)]


@pytest.mark.parametrize(
    ("value", "retry"), [("0", 0), ("1500", 1500), ("007", 7), ("9" * 19, 10**19 - 1)]
)
def test_retry_in_digits(codec: ModuleType, value: str, retry: int) -> None:
    decoder = codec.EventStreamDecoder()
    assert decoder.retry is None
    assert decode(decoder, f"retry: {value}\n".encode()) == []
    assert decoder.retry == retry


@pytest.mark.parametrize(
    "value",
    ["", "-1", "+1", "1.5", "1e3", "0x10", "1_000", "1 ", " 1", "abc", "²", "٣", "\uff11"],
)
def test_a_retry_of_anything_but_digits_is_ignored(codec: ModuleType, value: str) -> None:
    decoder = codec.EventStreamDecoder()
    assert decode(decoder, f"retry: 7\nretry: {value}\ndata: x\n\n".encode()) == plain("x")
    assert decoder.retry == 7


def test_retry_must_match_the_whole_field_name(codec: ModuleType) -> None:
    decoder = codec.EventStreamDecoder()
    assert decode(decoder, b"retries: 5\n5: 5\n5\nid: 5\nevent: 5\n") == []
    assert decoder.retry is None


def test_a_retry_of_any_length_is_accepted(codec: ModuleType) -> None:
    decoder = codec.EventStreamDecoder()
    assert decode(decoder, b"retry: " + b"9" * 5000 + b"\ndata: x\n\n") == plain("x")


# Input of the decoder -----------------------------------------------------------------------------


def test_the_decoder_accepts_any_bytes_like_object(codec: ModuleType) -> None:
    wire = b"data: x\n"
    decoder = codec.EventStreamDecoder()
    for data in (bytearray(wire), memoryview(wire), array.array("I", wire)):
        assert decoder.receive(data) == []
    assert decode(decoder, b"\n") == plain("x\nx\nx")


@pytest.mark.parametrize(
    "data", ["data: x\n\n", 5, None, [100]], ids=["str", "int", "None", "list"]
)
def test_the_decoder_rejects_other_types(codec: ModuleType, data: Any) -> None:
    decoder = codec.EventStreamDecoder()
    assert decode(decoder, b"data: x\n") == []
    with pytest.raises(TypeError):
        decoder.receive(data)
    assert decode(decoder, b"\n") == plain("x")


def test_a_buffer_may_be_reused(codec: ModuleType) -> None:
    decoder = codec.EventStreamDecoder()
    buffer = bytearray(b"data: gr\xc3")
    assert decoder.receive(buffer) == []
    buffer[:] = b"\xbcn\n\n"
    assert [event.data for event in decoder.receive(memoryview(buffer))] == ["grün"]
    buffer.clear()


# Limits -------------------------------------------------------------------------------------------

OVER = "an event exceeds the limit of 20 characters"


def fails(codec: ModuleType, stream: bytes, cuts: Iterable[int] = ()) -> bool:
    decoder = codec.EventStreamDecoder(max_event_size=20)
    try:
        decode(decoder, stream, cuts)
        decoder.receive(
            b""
        )  # raises the error that the last read postponed to return the events before it
    except codec.ProtocolError as error:
        assert (int(error.code), error.reason) == (1009, OVER)  # noqa: PT017
        return True
    return False


OVER_THE_LIMIT = {
    "line-that-does-not-end": b"data: " + b"x" * 15,
    "comment-that-does-not-end": b": " + b"x" * 19,
    "field-that-does-not-end": b"x" * 21,
    "line": b"data: " + b"x" * 20 + b"\n",
    "event-of-two-lines": b"data: 12345678\ndata: 1234567890123\n",
    "event-of-two-lines-by-one": b"data: 1234567\ndata: 1234567\n",
    "event-of-empty-lines": b"data\n" * 21,
    "event-and-a-line": b"data: 1234567890\ndata: 12345",
}


@pytest.mark.parametrize("stream", OVER_THE_LIMIT.values(), ids=OVER_THE_LIMIT)
def test_over_the_limit(codec: ModuleType, stream: bytes) -> None:
    assert fails(codec, stream)
    assert fails(codec, stream, range(1, len(stream)))
    assert fails(codec, stream, range(3, len(stream), 3))
    before = b"data: 12345\n\n: x\n\n"
    assert fails(codec, before + stream)
    assert fails(codec, before + stream, range(1, len(before + stream)))


WITHIN_THE_LIMIT = {
    "line-that-does-not-end": b"data: " + b"x" * 14,
    "line": b"data: " + b"x" * 14 + b"\n\n",
    "event-of-two-lines": b"data: 1234567\ndata: 123456\n\n",
    "many-events": b"data: 12345678901234\n\n" * 10,
    "many-comments": b": 1234567890\n" * 10,
    "many-fields": b"id: 123456789\nevent: 12345\n" * 10,
    "events-without-data": b"id: 123456789\n\n" * 10,
}


@pytest.mark.parametrize("stream", WITHIN_THE_LIMIT.values(), ids=WITHIN_THE_LIMIT)
def test_within_the_limit(codec: ModuleType, stream: bytes) -> None:
    assert not fails(codec, stream)
    assert not fails(codec, stream, range(1, len(stream)))
    assert not fails(codec, stream, range(3, len(stream), 3))


LINE = st.sampled_from([b"data: ", b"data", b"id: ", b"event:", b": ", b"retry: ", b"x"])


@given(
    lines=st.lists(st.tuples(LINE, st.integers(0, 22)), max_size=8),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_the_limit_does_not_depend_on_the_split(
    codec: ModuleType, lines: list[tuple[bytes, int]], cuts: list[int]
) -> None:
    stream = b"\n".join((name + b"1" * size) if size else b"" for name, size in lines) + b"\n"
    whole = fails(codec, stream)
    assert fails(codec, stream, sorted(cuts)) == whole
    assert fails(codec, stream, range(1, len(stream))) == whole


def test_the_events_before_an_oversized_one_are_returned(codec: ModuleType) -> None:
    decoder = codec.EventStreamDecoder(max_event_size=20)
    assert decode(decoder, b"data: first\n\ndata: " + b"x" * 30) == plain("first")
    with pytest.raises(codec.ProtocolError):
        decoder.receive(b"")


def test_the_limit_is_1048576_characters_by_default(codec: ModuleType) -> None:
    data = "x" * ((1 << 20) - 6)
    assert decode(codec.EventStreamDecoder(), f"data: {data}\n\n".encode()) == plain(data)
    with pytest.raises(codec.ProtocolError, match="exceeds the limit of 1048576 characters"):
        codec.EventStreamDecoder().receive(b"x" * ((1 << 20) + 1))


# Any stream, any split ----------------------------------------------------------------------------

name_text = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]))
PIECES = [b"data", b"id", b"event", b"retry", b":", b": ", b" ", b"\r", b"\n", b"\r\n", b"\0"]
PIECES += [b"x", b"12", "é".encode(), "\u2028".encode(), "\ufeff".encode(), b"\xff", b"\xf0\x9f"]


@given(pieces=st.lists(st.sampled_from(PIECES), max_size=60), data=st.data())
def test_any_split_gives_the_same_events(
    codec: ModuleType, pieces: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(pieces)
    whole = decode_both_ways(codec, stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    assert decode(codec.EventStreamDecoder(), stream, cuts) == whole


@pytest.mark.slow
@given(
    events=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"])),
            st.none() | name_text,
            st.none() | name_text,
            st.none() | st.integers(0, 10**9),
        ),
        max_size=5,
    ),
    step=st.integers(1, 60),
)
def test_encoded_data_is_decoded(codec: ModuleType, events: list[Decoded], step: int) -> None:
    wire = b"".join(codec.ServerSentEvent(*event).encode() for event in events)
    decoder = codec.EventStreamDecoder()
    received = decode(decoder, wire, range(step, len(wire), step))
    expected: list[Decoded] = []
    last_id = retry = None
    for data, name, identifier, delay in events:
        last_id = last_id if identifier is None else identifier
        retry = retry if delay is None else delay
        lines = data.replace("\r\n", "\n").replace("\r", "\n")
        expected.append((lines, name or None, last_id or None, None))
    assert received == expected
    assert (decoder.last_event_id, decoder.retry) == (last_id or "", retry)
