"""The application under test, in plain WSGI, for every server.

Its pages contain bytes that the client can compute, so that each of them is compared.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs

from wsframe.server import EventStream, WebSocket
from wsframe.server.timing import Timing
from wsframe.wsgi import Live

from .data import content
from .state import State

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Waits: TypeAlias = Generator[None, "str | bytes", None]

# A reloader restarts the server when this file changes; it exists beside a started server.
with suppress(ImportError):
    importlib.import_module("reloaded")

# Threads without work end early, so that a check can wait for that.
live = Live(drain=1.0, timing=Timing(thread_idle_timeout=1.0))


# Handlers ----------------------------------------------------------------------------------------


def echo(ws: WebSocket) -> Waits:
    """Echo every message on the loop."""
    while True:
        message = yield
        ws.send(message)


def plain(ws: WebSocket) -> None:
    """Echo every message from a thread."""
    for message in ws:
        ws.send(message)


def count(stream: EventStream, number: int) -> Iterator[str]:
    """Send so many numbers."""
    for each in range(number):
        yield str(each)


def words(stream: EventStream, text: str) -> Iterator[str]:
    """Send the words of a text, as a language model does."""
    yield from text.split()


# Pages -------------------------------------------------------------------------------------------


def read_body(environ: WSGIEnvironment) -> bytes:
    """Return the body of a request with a Content-Length."""
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    return body


def answer(start_response: StartResponse, status: str, body: bytes) -> Iterable[bytes]:
    """Return a response with this body."""
    headers = [
        ("Content-Type", "application/octet-stream"),
        ("Content-Length", str(len(body))),
        ("Set-Cookie", "a=page"),
    ]
    start_response(status, headers)
    return [body]


def view(environ: WSGIEnvironment) -> Any:
    """Return the response to a request: an application, the body of a page, or None for a 403."""
    path = environ["PATH_INFO"]
    query = parse_qs(environ.get("QUERY_STRING", ""))
    number = int(query.get("number", ["0"])[0])
    name = query.get("name", [""])[0]
    match path:
        case "/state":
            return State.of_this_process().encode()
        case "/page":
            return content(number)
        case "/body":
            return read_body(environ)
        case "/echo":
            return live.websocket(echo)
        case "/plain":
            return live.websocket(plain)
        case "/count" | "/unread":
            return live.events(count, number=number)
        case "/words":
            return live.events(words, text=read_body(environ).decode())
        case "/topic":
            return live.events(live.topic(name))
        case "/publish":
            live.topic(name).publish(read_body(environ).decode())
            return b"published"
        case "/forbidden":
            return None
        case _:
            raise LookupError(path)


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Serve a request."""
    response = view(environ)
    if response is None:
        return answer(start_response, "403 Forbidden", b"forbidden")
    if isinstance(response, bytes):
        return answer(start_response, "200 OK", response)
    parts: Iterable[bytes] = response(environ, start_response)
    return parts
