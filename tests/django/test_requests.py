"""The copy of a request that a handler keeps."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from types import FunctionType, ModuleType
from typing import Any

import pytest
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.backends.db import SessionStore
from django.core.handlers.wsgi import WSGIRequest
from django.db import connections
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject

from wsframe.django.requests import kept_request, read_short_body, resolved


def request_with(**attributes: Any) -> WSGIRequest:
    request = RequestFactory().get("/path/", {"q": "1"}, headers={"X-Mine": "2", "Cookie": "a=b"})
    for name, value in attributes.items():
        setattr(request, name, value)
    return request


def reachable(value: object) -> Iterator[object]:
    """Yield all objects to which a value refers, except by the code of programs."""
    seen, stack = {id(value)}, [value]
    while stack:
        each = stack.pop()
        yield each
        for other in gc.get_referents(each):
            if id(other) not in seen and not isinstance(other, type | ModuleType | FunctionType):
                seen.add(id(other))
                stack.append(other)


def test_a_copy_has_the_attributes_of_the_request() -> None:
    request = request_with(tenant="one", resolver_match="match")
    request.session = SessionStore()
    kept = kept_request(request)
    assert (kept.path, kept.method, kept.GET["q"]) == ("/path/", "GET", "1")
    assert (kept.headers["X-Mine"], kept.COOKIES) == ("2", {"a": "b"})
    assert kept.META["SERVER_NAME"] == "testserver"
    assert vars(kept)["tenant"] == "one"
    assert kept.resolver_match is request.resolver_match
    assert kept.session is request.session
    assert kept.body == b""


def test_a_copy_does_not_refer_to_objects_of_the_server() -> None:
    class Socket:
        pass

    request = request_with(session=SessionStore())
    vars(request)["site"] = SimpleLazyObject(partial(getattr, request, "path"))
    request.auser = partial(print, request)  # type: ignore[assignment]
    MessageMiddleware(lambda request: HttpResponse()).process_request(request)
    messages.info(request, "hello")
    sock = Socket()
    request.environ["server.socket"] = sock
    kept = kept_request(request)
    assert not hasattr(kept, "auser")
    assert not hasattr(kept, "_messages")
    assert vars(kept)["site"] == "/path/"
    found = list(reachable(vars(kept)))
    assert request.environ["server.socket"] in reachable(vars(request))
    assert not [each for each in found if each is sock or each is request]


def test_lazy_objects_are_loaded_once_and_before() -> None:
    user = get_user_model()(username="ada")
    request = request_with(user=SimpleLazyObject(lambda: user))
    kept = kept_request(request)
    assert type(kept.user) is type(user)
    assert kept.user.get_username() == "ada"
    assert resolved(SimpleLazyObject(lambda: [1])) == [1]
    assert resolved("text") == "text"


def test_the_session_is_loaded_before() -> None:
    store = SessionStore()
    store["name"] = "ada"
    store.create()
    request = request_with(session=SessionStore(store.session_key))
    kept = kept_request(request)
    connection = connections["default"]
    with connection.execute_wrapper(refuse):
        assert kept.session["name"] == "ada"
    store.delete()


def refuse(*_: object) -> None:
    raise AssertionError("the database was asked")


def test_a_body_that_was_read_is_kept() -> None:
    request = RequestFactory().post("/", b"x" * 100_000, content_type="text/plain")
    assert request.body
    assert read_short_body(request).read(1) == b""
    assert kept_request(request).body == request.body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("is_read", [False, True])
def test_no_body_of_a_get_request_is_kept(method: str, is_read: bool) -> None:
    request = RequestFactory().generic(method, "/", b"x" * 1000)
    if is_read:  # by a middleware
        assert len(request.body) == 1000
    unread = read_short_body(request)
    kept = kept_request(request)
    assert kept.body == b""
    assert not [each for each in reachable(vars(kept)) if each == b"x" * 1000]
    assert len(unread.read(2000)) == (0 if is_read else 1000)


def test_a_body_that_was_read_in_part_is_not_read_again() -> None:
    request = RequestFactory().post("/", b"hello", content_type="text/plain")
    assert request.read(2) == b"he"
    assert read_short_body(request).read(10) == b"llo"


def test_a_broken_body_is_left_to_its_reader() -> None:
    class Broken(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError("the client has disconnected")

    request = RequestFactory().post("/", b"hello", content_type="text/plain")
    request = WSGIRequest({**request.environ, "wsgi.input": Broken()})
    with pytest.raises(OSError, match="the client has disconnected"):
        read_short_body(request).read(10)
