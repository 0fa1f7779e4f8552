"""The code about Django in the documentation."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from typing import Any

import pytest
from django.test.client import Client as DjangoClient

import wsframe.django
from tests.support.clients import Client, StreamClient, WebSocketClient, upgrade
from tests.support.examples import faults
from tests.support.pages import DOCS, blocks, run_block

from .conftest import MakeLive, Serve, site

BLOCKS = blocks("python", pages=(DOCS / "django.md",))


def run(*numbers: int) -> dict[str, Any]:
    """Run blocks of the page, and return the names that they define."""
    names: dict[str, Any] = {"__name__": "project"}
    for number in numbers:
        BLOCKS[number].run(names)
    return names


@pytest.fixture
def names(database: object) -> Iterator[dict[str, Any]]:
    """The names of the blocks that make a project, except its settings."""
    names = run(0, 1, 2, 3, 5)
    yield names
    names["live"].stop()


def test_the_handlers_are_views(names: dict[str, Any], serve: Serve) -> None:
    port = serve(names["urlpatterns"])
    client = WebSocketClient(port, "/rooms/lobby/live/")
    assert client.expect(1) == ["Welcome to lobby, AnonymousUser"]
    client.send_messages("hello")
    assert client.expect(1) == ["hello"]
    client.leave()
    stream = StreamClient(port, "/countdown/3/")
    assert stream.expect(3) == ["3", "2", "1"]
    stream.close()


def test_the_views_check_the_request(
    names: dict[str, Any], serve: Serve, session: tuple[str, str]
) -> None:
    port = serve(names["urlpatterns"])
    refused = Client(port)
    refused.send(upgrade("/rooms/lobby/"))
    assert refused.read_until(b"\r\n").split()[1] == b"302"
    refused.close()
    one, other = (WebSocketClient(port, "/rooms/lobby/", session) for _ in range(2))
    one.send_messages("hello")
    assert one.expect(1) == other.expect(1) == ["ada: hello"]
    one.leave()
    other.leave()
    stream = StreamClient(port, "/news/", session)
    stream.read_opening()
    names["live"].topic("news").publish("text")
    assert stream.expect(1) == ["text"]
    stream.close()


def test_a_visitor_who_logs_out_loses_all_connections(
    names: dict[str, Any], serve: Serve, user: Any
) -> None:
    port = serve(names["urlpatterns"])
    ann, other = DjangoClient(), DjangoClient()
    other_user = type(user)._default_manager.create_user("other")
    ann.force_login(user)
    other.force_login(other_user)
    streams = []
    for visitor in (ann, ann, other):
        session = "Cookie", f"sessionid={visitor.cookies['sessionid'].value}"
        streams.append(StreamClient(port, "/updates/", session))
        streams[-1].read_opening()
    ann.logout()
    for stream in streams[:2]:
        stream.expect_end()
    names["live"].topic("news").publish("for the others")
    assert streams[2].expect(1) == ["for the others"]
    streams[2].close()
    other_user.delete()


def test_the_settings_are_valid(make_live: MakeLive) -> None:
    settings = run(4)
    with site([], WSFRAME={**settings["WSFRAME"], "redis": None}):
        make_live()
    assert settings["WSFRAME"]["redis"].startswith("redis://")


def test_the_options_of_the_handler_are_valid(names: dict[str, Any], serve: Serve) -> None:
    from django.urls import path

    port = serve([path("", names["chat"])])
    client = WebSocketClient(port, "/", ("Sec-WebSocket-Protocol", "chat"))
    client.send_messages("hello")
    assert client.expect(1) == ["HELLO"]
    client.leave()


def test_the_tests_of_the_page_pass(names: dict[str, Any], database: object) -> None:
    case = run(6)["RoomTest"]
    result = unittest.TestResult()
    with site(names["urlpatterns"]):
        unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert result.testsRun == 2
    assert [text for _, text in [*result.errors, *result.failures]] == []


def test_the_application_of_the_readme_is_a_chat(
    database: object, serve: Serve, session: tuple[str, str]
) -> None:
    names = run_block("login_required", "README.md")
    client = WebSocketClient(serve(names["urlpatterns"]), "/rooms/lobby/live/", session)
    client.send_messages("hello")
    assert client.expect(1) == ["ada: hello"]
    client.leave()
    names["live"].stop()


def test_every_public_class_has_a_correct_example(database: object) -> None:
    from django.urls import path

    assert faults(wsframe.django, path=path) == []


def test_every_block_of_the_page_is_tested() -> None:
    assert len(BLOCKS) == 7
