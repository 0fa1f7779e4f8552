"""The copy of a request that a handler uses after the response."""

from __future__ import annotations

import copy
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import Any, TypeVar

from django.core.handlers.wsgi import WSGIRequest
from django.http import RawPostDataException, UnreadablePostError
from django.utils.functional import LazyObject

from ..wsgi.body import MAX_UNREAD, Readable

Value = TypeVar("Value")

# The attributes of a request that are invalid after its response.
NOT_KEPT = frozenset(("META", "_files", "_read_started", "_stream", "_upload_handlers", "environ"))
# The methods whose body has no meaning (RFC 9110 section 9.3). Such a body is not kept.
WITHOUT_BODY = frozenset(("GET", "HEAD"))


def read_short_body(request: WSGIRequest) -> Readable:
    """The request's thread: read the body for the handler, unless it is long or was read before.

    Returns:
        A reader for the unread bytes of the body.
    """
    if request.method not in WITHOUT_BODY:
        with suppress(RawPostDataException, UnreadablePostError, ValueError):
            if int(request.META.get("CONTENT_LENGTH") or 0) <= MAX_UNREAD:
                request.body  # noqa: B018
    return BytesIO() if hasattr(request, "_body") else request


def kept_request(request: WSGIRequest) -> WSGIRequest:
    """The request's thread: return a copy of a request that a handler can use after the response.

    The copy does not refer to objects of the WSGI server, so that these are freed. Lazy attributes,
    such as ``user``, are loaded now. The copy lacks attributes that refer to the request itself,
    such as the storage of messages, and the body of a GET request.
    """
    strings = {name: value for name, value in request.environ.items() if isinstance(value, str)}
    kept = type(request)({**strings, "wsgi.input": BytesIO()})
    session = getattr(request, "session", None)
    if session is not None:
        session.keys()  # loads the session
    not_kept = NOT_KEPT | {"_body"} if request.method in WITHOUT_BODY else NOT_KEPT
    for name, value in list(vars(request).items()):  # loading a value can add attributes
        if name not in not_kept:
            value = resolved(value)
            if not _refers(value, request):
                setattr(kept, name, value)
    return kept


def resolved(value: Value) -> Value:
    """The request's thread: load a ``LazyObject`` and return its object; else return the value."""
    if not isinstance(value, LazyObject):
        return value
    value.__class__  # noqa: B018  # loads the lazy object
    loaded: Value = copy.copy(value)  # the copy of a lazy object is the loaded object
    return loaded


def _refers(value: Any, request: WSGIRequest) -> bool:
    """Return True if an attribute's value refers to the request, and would keep it in memory."""
    if isinstance(value, partial):
        return request in value.args
    return getattr(value, "request", None) is request
