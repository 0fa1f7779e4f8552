"""Header fields (RFC 9110 section 5): lookup, lists, parsing and encoding."""

from __future__ import annotations

import re
from functools import partial
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.tools import outcome

pytestmark = pytest.mark.one_kernel

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
MALFORMED = "the Sec-WebSocket-Extensions header is malformed"


def fields(codec: ModuleType, *headers: tuple[str, str], status: int = 400) -> Any:
    return codec.fields.Fields(headers, status)


# One field, and lists -----------------------------------------------------------------------------


def test_a_field_is_case_insensitive_and_stripped(codec: ModuleType) -> None:
    found = fields(codec, ("HoSt", " \ta b\t "), ("Empty", ""))
    assert found.single("host") == "a b"
    assert found.single("empty") == ""
    assert found.single("missing") is None
    assert codec.fields.Fields({"HOST": "x"}).single("host") == "x"
    assert codec.fields.Fields(iter([("Host", "x")])).single("host") == "x"


@pytest.mark.parametrize("status", [400, 502])
def test_a_field_that_may_appear_once(codec: ModuleType, status: int) -> None:
    found = fields(codec, ("Sec-WebSocket-Key", "a"), ("sec-websocket-key", "a"), status=status)
    with pytest.raises(codec.HandshakeError) as caught:
        found.single("sec-websocket-key")
    assert caught.value.status == status
    assert caught.value.reason == "more than one Sec-Websocket-Key header"
    assert str(caught.value) == f"more than one Sec-Websocket-Key header ({status})"


@pytest.mark.parametrize(
    ("values", "items"),
    [
        ([], []),
        ([""], []),
        ([" , ,\t"], []),
        (["a"], ["a"]),
        (["a,b"], ["a", "b"]),
        ([" a \t,\tb c ,,"], ["a", "b c"]),
        (["b", "", "a, c"], ["b", "a", "c"]),
    ],
)
def test_a_list_may_be_split_into_several_fields(
    codec: ModuleType, values: list[str], items: list[str]
) -> None:
    found = fields(codec, *(("X-List", value.upper()) for value in values))
    assert found.items("x-list") == [item.upper() for item in items]
    assert found.tokens("x-list") == set(items)


@pytest.mark.parametrize("values", [[",".join("a" * 101)], ["," * 100], ["a"] * 101])
def test_a_list_has_at_most_a_hundred_items(codec: ModuleType, values: list[str]) -> None:
    headers = [("Sec-WebSocket-Protocol", value) for value in values]
    with pytest.raises(codec.HandshakeError) as caught:
        fields(codec, *headers).items("sec-websocket-protocol")
    reason = "the Sec-Websocket-Protocol header has more than 100 items"
    assert (caught.value.status, caught.value.reason) == (400, reason)
    fewer = [value.replace(",", "", 1) for value in values][:100]
    fields(codec, *(("X-List", value) for value in fewer)).items("x-list")


# Extensions (RFC 6455 section 9.1) ----------------------------------------------------------------


def extensions(codec: ModuleType, *values: str) -> Any:
    return fields(codec, *(("Sec-WebSocket-Extensions", value) for value in values)).extensions()


EXTENSIONS: dict[str, tuple[list[str], list[tuple[str, list[tuple[str, str | None]]]]]] = {
    "none": ([], []),
    "empty": ([""], []),
    "empty-items": ([", ,\t,"], []),
    "one": (["foo"], [("foo", [])]),
    "parameters": (["foo; a; b=c"], [("foo", [("a", None), ("b", "c")])]),
    "same-parameter-twice": (
        ["foo; a=1; a=2; a"],
        [("foo", [("a", "1"), ("a", "2"), ("a", None)])],
    ),
    "no-blanks": (["foo;a;b=c,bar"], [("foo", [("a", None), ("b", "c")]), ("bar", [])]),
    "many-blanks": (
        ["\t foo \t; \ta \t= \tb \t; c \t, \t bar \t"],
        [("foo", [("a", "b"), ("c", None)]), ("bar", [])],
    ),
    "fields-in-order": (["b; x", "a", "", "c"], [("b", [("x", None)]), ("a", []), ("c", [])]),
    "same-twice": (["foo, foo; a", "foo"], [("foo", []), ("foo", [("a", None)]), ("foo", [])]),
    "empty-items-between": ([",foo,,bar, ,"], [("foo", []), ("bar", [])]),
    "case-is-kept": (["Foo; A=B"], [("Foo", [("A", "B")])]),
    "quoted": (['foo; a="b"; c="d"'], [("foo", [("a", "b"), ("c", "d")])]),
    "quoted-with-escapes": (['foo; a="\\b\\1c"'], [("foo", [("a", "b1c")])]),
    "all-that-a-token-has": (
        [f"{TOKEN_CHARACTERS}; {TOKEN_CHARACTERS}={TOKEN_CHARACTERS}"],
        [(TOKEN_CHARACTERS, [(TOKEN_CHARACTERS, TOKEN_CHARACTERS)])],
    ),
}


@pytest.mark.parametrize(("values", "expected"), EXTENSIONS.values(), ids=EXTENSIONS.keys())
def test_extensions_are_parsed(codec: ModuleType, values: list[str], expected: Any) -> None:
    assert extensions(codec, *values) == expected


NOT_EXTENSIONS = {
    "blank-in-a-name": "foo bar",
    "semicolon-alone": ";",
    "semicolon-first": "; a",
    "semicolon-last": "foo;",
    "semicolon-last-in-an-item": "foo; , bar",
    "two-semicolons": "foo;; a",
    "equal-sign-alone": "=",
    "equal-sign-last": "foo; a=",
    "equal-sign-in-a-name": "foo=bar",
    "equal-sign-first": "foo; =a",
    "two-equal-signs": "foo; a==b",
    "two-values": "foo; a=b=c",
    "value-with-a-blank": "foo; a=b c",
    "value-with-a-slash": "foo; a=b/c",
    "quotes-alone": 'foo; a="',
    "quotes-open": 'foo; a="b',
    "quotes-open-at-a-backslash": 'foo; a="b\\',
    "quotes-open-behind-an-escape": 'foo; a="b\\"',
    "quotes-with-nothing": 'foo; a=""',
    "quotes-with-a-blank": 'foo; a="b c"',
    "quotes-with-a-comma": 'foo; a="b,c"',
    "quotes-with-a-semicolon": 'foo; a="b;c"',
    "quotes-with-quotes": 'foo; a="b\\"c"',
    "quotes-with-a-backslash": 'foo; a="b\\\\c"',
    "quotes-with-more-behind": 'foo; a="b"c',
    "quotes-twice": 'foo; a="b""c"',
    "quotes-inside-a-token": 'foo; a=b"c"',
    "quoted-name": '"foo"',
    "quoted-parameter": 'foo; "a"=b',
    "parentheses": "foo (comment)",
    "control-character": "foo\x00",
    "line-feed": "foo\n",
    "line-feed-in-quotes": 'foo; a="\\\nb"',
    "vertical-tab-as-blank": "foo;\x0ba",
    "not-ascii": "föö",
    "digits-that-are-not-ascii": "foo; a=\u0661",
}


@pytest.mark.parametrize("value", NOT_EXTENSIONS.values(), ids=NOT_EXTENSIONS.keys())
@pytest.mark.parametrize("status", [400, 502])
def test_an_invalid_list_of_extensions(codec: ModuleType, value: str, status: int) -> None:
    for values in ([value], ["good; a=b", value], [value, "good"]):
        headers = [("Sec-WebSocket-Extensions", item) for item in values]
        with pytest.raises(codec.HandshakeError) as caught:
            codec.fields.Fields(headers, status).extensions()
        assert (caught.value.status, caught.value.reason) == (status, MALFORMED)


TOKENS = st.text(TOKEN_CHARACTERS, min_size=1, max_size=9)
BLANKS = st.text(" \t", max_size=2)


@pytest.mark.slow
@pytest.mark.unmeasured
@given(
    listed=st.lists(
        st.tuples(TOKENS, st.lists(st.tuples(TOKENS, st.none() | TOKENS), max_size=3)), max_size=4
    ),
    data=st.data(),
)
def test_every_list_of_extensions_is_parsed(
    codec: ModuleType, listed: list[Any], data: st.DataObject
) -> None:
    def blank() -> str:
        return data.draw(BLANKS)

    def written(value: str | None) -> str:
        if value is None:
            return ""
        quoted = "".join(
            ("\\" if data.draw(st.booleans()) else "") + character for character in value
        )
        return f"{blank()}={blank()}" + (f'"{quoted}"' if data.draw(st.booleans()) else value)

    values = [""]
    for name, parameters in listed:
        item = name + "".join(
            f"{blank()};{blank()}{parameter}{written(value)}" for parameter, value in parameters
        )
        if data.draw(st.booleans()):
            values.append(item)
        else:
            values[-1] += f"{blank()},{blank()}{item}"
    assert extensions(codec, *values) == listed


@given(value=st.text(st.sampled_from('ab=;,"\\ \t/\n'), max_size=40))
def test_any_list_of_extensions_is_parsed_or_rejected(codec: ModuleType, value: str) -> None:
    kind, found = outcome(lambda: extensions(codec, value))
    if kind == "HandshakeError":
        assert found == f"{MALFORMED} (400)"
        return
    assert isinstance(found, list)
    for name, parameters in found:
        for token in (name, *(word for pair in parameters for word in pair if word is not None)):
            assert set(token) <= set(TOKEN_CHARACTERS)
            assert token


@pytest.mark.parametrize(
    "value",
    [
        "a" + ";" * 100_000,
        "a" + "; a" * 30_000 + ";",
        "," * 100_000 + ";",
        " \t" * 50_000 + ";",
        "a;" + " " * 100_000,
        "a; b" + " " * 100_000 + "c",
        'a; b="' + "\\a" * 50_000,
        "a; b=" * 20_000,
        "a, " * 101,
        "a; b" * 101,
        'a; b="' + "\\b" * 101 + '"',
    ],
    ids=lambda value: value[:12],
)
def test_a_long_header_is_parsed_in_linear_time(codec: ModuleType, value: str) -> None:
    # With superlinear time this would not end.
    with pytest.raises(codec.HandshakeError, match=MALFORMED):
        extensions(codec, value)


# Written ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "X-Note", TOKEN_CHARACTERS])
@pytest.mark.parametrize("value", ["", "a b\tc", " blanks ", "caf\xe9", "\x80\xff", ', ; = \\"'])
def test_a_valid_field(codec: ModuleType, name: str, value: str) -> None:
    assert codec.headers.check_field(name, value) is None


@pytest.mark.parametrize(
    "name", ["", " a", "a ", "a b", "a:", "a\r\nb", "a\n", "\xe4", "a\0", "(a)", "a/b", '"a"']
)
def test_a_name_must_be_a_token(codec: ModuleType, name: str) -> None:
    text = re.escape(f"a header name must be a token: {name!r}")
    with pytest.raises(ValueError, match=f"^{text}$"):
        codec.headers.check_field(name, "x")


@pytest.mark.parametrize("value", [5, None, b"x", ["x"]], ids=repr)
def test_a_value_must_be_a_str(codec: ModuleType, value: object) -> None:
    with pytest.raises(TypeError):
        codec.headers.check_field("a", value)


CONTROLS = [chr(code) for code in (*range(32), 127) if chr(code) != "\t"]


@pytest.mark.parametrize("character", CONTROLS, ids=repr)
def test_a_value_must_not_contain_control_characters(codec: ModuleType, character: str) -> None:
    for value in (character, f"a{character}", f"{character}b", f"a{character}b"):
        with pytest.raises(ValueError, match=r"^a header must not contain control characters: a:"):
            codec.headers.check_field("a", value)


def test_a_value_must_be_latin_1(codec: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"^a header must be in Latin-1: a: "):
        codec.headers.check_field("a", "\u0100")


# A response's head, read --------------------------------------------------------------------------


def head(*lines: str) -> bytes:
    return "\r\n".join((*lines, "", "")).encode("latin-1")


RESPONSES: dict[str, tuple[bytes, int, list[tuple[str, str]]]] = {
    "switching": (
        head("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection:Upgrade"),
        101,
        [("Upgrade", "websocket"), ("Connection", "Upgrade")],
    ),
    "no-headers": (head("HTTP/1.1 200 OK"), 200, []),
    "no-phrase": (head("HTTP/1.1 404 "), 404, []),
    "neither-phrase-nor-blank": (head("HTTP/1.1 404"), 404, []),
    "long-phrase": (head("HTTP/1.1 503 Not now, and not ever: sorr\xff!"), 503, []),
    "a-refusal-in-1.0": (head("HTTP/1.0 401 Unauthorized"), 401, []),
    "unknown-status": (head("HTTP/1.1 599 x"), 599, []),
    "blanks-around-a-value": (head("HTTP/1.1 200 OK", "a: \t b c\t "), 200, [("a", "b c")]),
    "empty-value": (head("HTTP/1.1 200 OK", "a:", "b: "), 200, [("a", ""), ("b", "")]),
    "colons-in-a-value": (head("HTTP/1.1 200 OK", "a: b:c: d"), 200, [("a", "b:c: d")]),
    "same-name-twice": (head("HTTP/1.1 200 OK", "a: 1", "A: 2"), 200, [("a", "1"), ("A", "2")]),
    "latin-1": (head("HTTP/1.1 200 OK", "a: caf\xe9"), 200, [("a", "caf\xe9")]),
    "folded": (
        head("HTTP/1.1 200 OK", "a: b", " c", "\td: e", "f:", " \tg", "h: i", " "),
        200,
        [("a", "b c d: e"), ("f", "g"), ("h", "i")],
    ),
}


@pytest.mark.parametrize(("data", "status", "headers"), RESPONSES.values(), ids=RESPONSES.keys())
def test_a_valid_response_is_parsed(
    codec: ModuleType, data: bytes, status: int, headers: list[tuple[str, str]]
) -> None:
    assert codec.fields.decode_response(data) == (status, headers)


NO_HTTP = "the response does not begin with an HTTP/1.1 status line"
BAD_HEADER = "a header of the response is malformed"

NO_RESPONSES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", NO_HTTP),
    "empty-line": (b"\r\n\r\n", NO_HTTP),
    "noise": (bytes(range(256)), NO_HTTP),
    "another-protocol": (head("SSH-2.0-OpenSSH_9.2"), NO_HTTP),
    "a-request": (head("GET / HTTP/1.1"), NO_HTTP),
    **{
        line: (head(line), NO_HTTP)
        for line in (
            *("HTTP/1.0 101 x", "HTTP/2 101", "HTTP/1.10 101 x", "http/1.1 101 x", "ICY 200 OK"),
            *("HTTP/1.1", "HTTP/1.1 ", "HTTP/1.1 10", "HTTP/1.1 1010 x", "HTTP/1.1 1x1 x"),
            *("HTTP/1.1  101 x", "HTTP/1.1\t101 x", "HTTP/1.1 101x", "HTTP/1.1 +01 x"),
            *(" HTTP/1.1 101 x", "HTTP/1.1 600 x", "HTTP/1.1 001 x", "HTTP/1.1 1\xb21 x"),
            *("HTTP/1.1 101 a\nb: c", "HTTP/1.1 101 a\rb"),
        )
    },
    **{
        repr(line): (head("HTTP/1.1 101 x", "a: b", line, "c: d"), BAD_HEADER)
        for line in (
            *(
                "no colon",
                "nocolon",
                ": no name",
                "a b: c",
                "a : b",
                "(a): b",
            ),
            *("\xe4: b", "a: b\nc: d", "a: b\rc: d", "a: \0", "a: \x7f", "a\n: b", ""),
        )
    },
    "no-header-before-a-fold": (head("HTTP/1.1 101 x", " folded", "a: b"), BAD_HEADER),
    "control-character-in-a-fold": (head("HTTP/1.1 101 x", "a: b", " \0"), BAD_HEADER),
    "empty-line-at-the-end": (head("HTTP/1.1 101 x", ""), BAD_HEADER),
    "more-than-the-head": (head("HTTP/1.1 101 x", "a: b") + b"\x81\x00", BAD_HEADER),
}


@pytest.mark.parametrize(("data", "reason"), NO_RESPONSES.values(), ids=NO_RESPONSES.keys())
def test_an_invalid_response(codec: ModuleType, data: bytes, reason: str) -> None:
    with pytest.raises(codec.HandshakeError) as caught:
        codec.fields.decode_response(data)
    assert (caught.value.status, caught.value.reason) == (502, reason)


@given(data=st.binary(max_size=200), after=st.binary(max_size=60))
def test_random_bytes_are_not_a_response(codec: ModuleType, data: bytes, after: bytes) -> None:
    for garbage in (data, b"HTTP/1.1 101 x\r\n" + after, b"HTTP/1.1 101 x\r\na: " + after):
        kind, found = outcome(partial(codec.fields.decode_response, garbage))
        if kind == "HandshakeError":
            assert found in (f"{NO_HTTP} (502)", f"{BAD_HEADER} (502)")
            continue
        assert isinstance(found, tuple)
        status, headers = found
        assert 100 <= status <= 599
        for name, value in headers:
            codec.headers.check_field(name, value)


@given(
    status=st.sampled_from([100, 101, 200, 301, 404, 503]),
    headers=st.lists(
        st.tuples(
            TOKENS,
            st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=20),
        ),
        max_size=4,
    ),
)
def test_encoded_data_is_decoded(
    codec: ModuleType, status: int, headers: list[tuple[str, str]]
) -> None:
    wire = codec.headers.encode_response(status, headers)
    expected = [(name, value.strip(" \t")) for name, value in headers]
    assert codec.fields.decode_response(wire) == (status, expected)


def test_a_field_is_replaced_in_a_copy(codec: ModuleType) -> None:
    fields = codec.fields.Fields([("Host", "a.example"), ("host", "b.example"), ("Accept", "*/*")])
    replaced = fields.replace("host", "c.example")
    assert replaced.single("host") == "c.example"
    assert replaced.single("accept") == "*/*"
    assert fields.items("host") == ["a.example", "b.example"]


def test_fields_of_fields_are_the_same_object(codec: ModuleType) -> None:
    fields = codec.fields.Fields([("Host", "a.example")])
    assert codec.fields.Fields.of(fields) is fields
    assert codec.fields.Fields.of([("Host", "a.example")]).single("host") == "a.example"
