"""Views and handlers of a Django project that use all of ``wsframe.django``."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Queue

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.http import HttpRequest, HttpResponseBase
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from wsframe.django import ConnectionClosed, EventStream, Live, Stats, Topic, View, WebSocket

live = Live(redis="redis://localhost:6379/0", origins=["https://friend.example"], drain=5.0)
news: Topic = live.topic("news", history=100)
items: Queue[str] = Queue()


def note(number: int) -> None:
    """Use a number."""


@live.websocket
@live.handler(subprotocols=["chat"], deflate=True, max_message_size=1024, blocking=True)
def talk(request: HttpRequest, ws: WebSocket, room: str) -> Generator[None, str, None]:
    """Wait at ``yield``."""
    user: AbstractBaseUser | AnonymousUser = request.user
    try:
        with ws.subscribe(room, member=user.get_username()):
            while True:
                message = yield
                live.topic(room).publish(message)
    except ConnectionClosed as error:
        note(error.code)


@live.websocket
def echo(request: HttpRequest, ws: WebSocket) -> None:
    """Use a thread."""
    for message in ws:
        ws.send(message)


@live.events
def count(request: HttpRequest, stream: EventStream, to: int) -> Iterator[int]:
    """Yield events."""
    yield from range(to)
    yield len(stream.get(items))


def tokens(request: HttpRequest, stream: EventStream, prompt: str) -> Iterator[str]:
    """Yield the words of an answer."""
    yield from prompt.split()


@login_required
def room(request: HttpRequest, room: str) -> HttpResponseBase:
    """Check the request first."""
    return talk(request, room=room.lower())


@csrf_exempt
def ask(request: HttpRequest) -> HttpResponseBase:
    """Answer a POST with a stream."""
    view: View = live.events(tokens, prompt=str(request.POST["prompt"]))
    return view(request)


def stats(request: HttpRequest) -> HttpResponseBase:
    """Use the statistics."""
    now: Stats = live.stats()
    note(now.topics)
    return live.metrics_view(request)


urlpatterns = [
    path("rooms/<slug:room>/", room),
    path("talk/<slug:room>/", talk),
    path("echo/", login_required(echo)),
    path("count/<int:to>/", count),
    path("news/", live.events(news)),
    path("ask/", ask),
    path("stats/", stats),
]


def stop() -> None:
    """Close all connections."""
    live.stop(drain=1.0)
