"""Cookies of requests."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest

from wsframe.server import Request
from wsframe.server.http.request import shorten


def request_with(*headers: str) -> Request:
    fields = [("Cookie", header) for header in headers]
    return Request("GET", "/", fields, "1.1", ("127.0.0.1", 1), "http")


def test_cookies_are_read_as_browsers_send_them() -> None:
    assert request_with().cookies == {}
    for header, cookies in {
        "": {},
        "a=1": {"a": "1"},
        "a=1; b=2": {"a": "1", "b": "2"},
        "a=1;b=2;;\t c = 3 ;": {"a": "1", "b": "2", "c": "3"},
        "a=first; a=second": {"a": "first"},
        "A=1; a=2": {"A": "1", "a": "2"},
        "a=": {"a": ""},
        "a=b=c==": {"a": "b=c=="},
        "a=%3B+x": {"a": "%3B+x"},
        "a=x y, z": {"a": "x y, z"},
        "a[0]=1; __Host-a=2; $Path=/": {"a[0]": "1", "__Host-a": "2", "$Path": "/"},
        "nameless; =nameless; =a=1; b=2": {"b": "2"},
        "a=\xe9": {"a": "\xe9"},
    }.items():
        assert request_with(header).cookies == cookies, header
    assert request_with("a=1", "b=2; a=3").cookies == {"a": "1", "b": "2"}


def test_quotes_are_removed_as_the_standard_library_does() -> None:
    for value in (
        *('"a b"', '""', '"', '"a', 'a"', 'a"b"', '"a\\"b"', r'"\073\054"', r'"\400\9"'),
        *(r'"\\073"', r"\073", '"a\\', '"a\\"', r'"\07"'),
    ):
        expected = SimpleCookie().value_decode(value)[0]
        assert request_with(f"a={value}").cookies == {"a": expected}, value


def test_cookies_cannot_be_changed() -> None:
    cookies = request_with("a=1").cookies
    with pytest.raises(TypeError):
        cookies["a"] = "2"  # type: ignore[index]


def test_the_cookies_of_a_long_head_are_not_kept() -> None:
    request = request_with(f"a={'x' * 100}")
    shorten(request, 200)
    assert request.cookies == {"a": "x" * 100}
    shorten(request, 100)
    with pytest.raises(RuntimeError, match="max_kept_head"):
        _ = request.cookies
