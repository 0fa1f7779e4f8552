"""The live parts: a WebSocket for each room, and an event stream for each user."""

from __future__ import annotations

import json
import re
from collections.abc import Generator

from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponseBase
from django.template.loader import render_to_string

from wsframe.django import Live, Topic, WebSocket

from .models import Message

live = Live()


@login_required
@live.websocket
@live.handler(blocking=True, max_message_size=4096)  # turns run in threads, for the database
def talk(request: HttpRequest, ws: WebSocket, room: str) -> Generator[None, str, None]:
    """Send the latest messages, then every new one; a client that reconnects misses none."""
    assert isinstance(request.user, User)
    topic = live.topic(f"room {room}")
    try:
        with ws.subscribe(topic, member=request.user.username):
            ws.send(render_to_string("chat/messages.html", {"messages": latest(room)}))
            show_members(topic)
            while True:
                text = text_in((yield))
                if text:
                    post(request.user, room, text)
    finally:
        show_members(topic)


@login_required
def notices(request: HttpRequest) -> HttpResponseBase:
    """Open the event stream of the user."""
    assert isinstance(request.user, User)
    return live.events(notices_of(request.user))(request)


def post(author: User, room: str, text: str) -> None:
    """Store a message, and send it to its room and to users that it mentions."""
    message = Message.objects.create(room=room, author=author, text=text)
    html = render_to_string("chat/messages.html", {"messages": [message]})
    live.topic(f"room {room}").publish(html)
    for user in User.objects.filter(username__in=re.findall(r"@([\w-]+)", text)):
        html = render_to_string("chat/notice.html", {"message": message})
        notices_of(user).publish(html)


def text_in(message: str) -> str:
    """Return the text that htmx has sent; "" if the message is not from its form."""
    try:
        text = str(json.loads(message)["text"]).strip()[:500]
        text.encode()  # an error for half of a surrogate pair
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""
    return text


def latest(room: str) -> list[Message]:
    """Return the latest messages of a room."""
    newest = Message.objects.filter(room=room).select_related("author").order_by("-pk")
    return list(reversed(newest[:50]))


def show_members(topic: Topic) -> None:
    """Send the list of the members of a room to all of them."""
    members = sorted(set(topic.members()))
    topic.publish(render_to_string("chat/members.html", {"members": members}))


def notices_of(user: User) -> Topic:
    """Return the topic with the notices for a user."""
    return live.topic(f"notices {user.pk}")
