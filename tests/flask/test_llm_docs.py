"""The code of docs/llm.md."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from tests.support.clients import Client, get
from tests.support.pages import DOCS, blocks
from tests.support.waiting import TIMEOUT
from tests.wsgi import running
from wsframe import EventStreamDecoder

BLOCKS = blocks("python", pages=(DOCS / "llm.md",))

Serve = Callable[[int], tuple[dict[str, Any], int]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a block; return the names that it defines, and the port."""
    with ExitStack() as stack:

        def start(number: int) -> tuple[dict[str, Any], int]:
            names: dict[str, Any] = {"__name__": "page"}
            BLOCKS[number].run(names)
            stack.callback(names["live"].stop, 0)
            return names, stack.enter_context(running.werkzeug_server(names["app"]))

        yield start


def post(port: int, *headers: tuple[str, str], **form: str) -> Client:
    """Post a question."""
    body = urlencode({"question": "why?", **form}).encode()
    kind = ("Content-Type", "application/x-www-form-urlencoded")
    client = Client(port)
    client.send(
        get("/answers", kind, ("Content-Length", str(len(body))), *headers, method="POST") + body
    )
    return client


def events_of(client: Client) -> tuple[list[tuple[str | None, str]], str]:
    """Return the types and data of a complete stream, and its last id."""
    answer = client.answer()
    assert answer.status == 200
    decoder = EventStreamDecoder()
    return [(event.event, event.data) for event in decoder.receive(answer.body)], (
        decoder.last_event_id
    )


class Endless:
    """A model that writes until it is closed.

    Attributes:
        closed: set once it is closed.
    """

    def __init__(self) -> None:
        self.closed = threading.Event()

    def __call__(self, question: str) -> Iterator[str]:
        """Return the tokens of an answer."""
        try:
            while not self.closed.wait(0.005):
                yield "so "
        finally:
            self.closed.set()


TOKENS = [(None, f'{{"text": "{token}"}}') for token in ("You ", "have ", "asked: ", "why?")]


def test_the_model_stops_when_its_only_client_leaves(serve: Serve) -> None:
    names, port = serve(0)
    assert events_of(post(port)) == (TOKENS, ":end")
    assert post(port, ("Last-Event-ID", "7")).answer().status == 410
    names["model"] = model = Endless()
    client = post(port)
    assert b'id: 1\ndata: {"text": "so "}' in client.read_until(b"id: 2")
    client.close()
    assert model.closed.wait(TIMEOUT)


def test_an_answer_continues_for_a_client_that_reconnects(serve: Serve) -> None:
    names, port = serve(1)
    name = str(uuid4())
    reconnected = threading.Event()

    def model(question: str) -> Iterator[str]:
        yield "one"
        reconnected.wait(TIMEOUT)
        yield "two"

    names["model"] = model
    client = post(port, answer=name)
    head = client.read_until(b'data: {"text": "one"}\n\n')
    last_id = re.findall(rb"id: (.*)\n", head)[-1].decode()
    again = post(port, ("Last-Event-ID", last_id), answer=name)
    again.read_until(b"\r\n\r\n")
    client.close()
    reconnected.set()
    rest = EventStreamDecoder().receive(again.read_to_end())
    again.close()
    complete = [(None, '{"text": "one"}'), (None, '{"text": "two"}'), ("done", "")]
    assert [(event.event, event.data) for event in rest] == complete[1:]
    assert events_of(post(port, answer=name)) == (complete, ":end")
    assert post(port, answer="7").answer().status == 400


def test_an_answer_without_clients_is_stopped(serve: Serve) -> None:
    names, port = serve(1)
    names["PATIENCE"] = 0.0
    names["model"] = model = Endless()
    name = str(uuid4())
    client = post(port, answer=name)
    client.read_until(b"so ")
    client.close()
    assert model.closed.wait(TIMEOUT)
    refused = post(port, ("Last-Event-ID", "7"), answer=name).answer()
    assert (refused.status, refused.body) == (410, b"The answer was stopped. Ask again.")


def test_all_blocks_are_tested() -> None:
    assert len(BLOCKS) == 2
