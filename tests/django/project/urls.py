"""The URLs of the project under test: a few that programs use; tests add their own."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from django.http import HttpRequest, HttpResponse
from django.urls import path

from wsframe.django import EventStream, Live, WebSocket

live = Live(drain=2.0)


@live.websocket
def echo(request: HttpRequest, ws: WebSocket) -> Generator[None, str, None]:
    """Greet the user, and echo every message."""
    ws.send(f"hello {request.user}")
    while True:
        ws.send((yield))


@live.events
def count(request: HttpRequest, stream: EventStream, to: int) -> Iterator[int]:
    """Send so many numbers."""
    yield from range(to)


def page(request: HttpRequest) -> HttpResponse:
    """Reply with a page."""
    return HttpResponse("page")


urlpatterns = [path("echo/", echo), path("count/<int:to>/", count), path("", page)]
