"""The list of open event streams, and closing the streams of a user."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from uuid import UUID

import pytest
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import Route

from tests.support.processes import ServerProcess
from tests.support.redis_server import RedisServer
from tests.support.uvicorn_fixtures import StartUvicorn
from tests.support.uvicorn_server import STARTED, Message
from tests.support.waiting import wait_until
from wsframe.asgi import EventStream, Topics
from wsframe.server import App
from wsframe.server.sockets import snapshot
from wsframe.server.sockets.identities import STEP
from wsframe.server.topics.closings import Close, Closings

from .conftest import Open
from .streams import ChunkedStream, Request, answer, opened
from .test_eventstream import stream_of
from .test_requests import open_on_a_closed_loop, run

NUMBER = UUID("6a2f41a3-c54c-fce8-32d2-0324e1c32e22")


def application(topics: Topics) -> Starlette:
    """Return an application with a stream of each user, and a page that closes these streams."""

    async def stream(request: StarletteRequest) -> EventStream:
        user = request.query_params.get("user")
        return stream_of(topics.topic("news"), identity=user, member=user)

    async def log_out(request: StarletteRequest) -> Response:
        topics.close_identity(request.path_params["user"])
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/news", stream),
            Route("/bye/{user}", log_out),
        ]
    )


def test_the_streams_of_one_user_are_closed_for_good(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    topic = topics.topic("news")
    server = serve(application(topics))
    ann = [connect(server, "/news?user=ann") for _ in range(2)]
    bob, other = connect(server, "/news?user=bob"), connect(server, "/news")
    for client in (*ann, bob, other):
        client.opening()
    assert topic.members() == ["ann", "bob"]
    topic.publish("last")
    assert answer(server.port, "/bye/ann").status == 204
    for client in ann:
        assert client.read_rest() == ["last"]
        assert client.last_event_id == ":end"
    assert answer(server.port, "/news?user=ann", ("Last-Event-ID", ":end")).status == 204
    assert topic.members() == ["bob"]
    topic.publish("more")
    for client in (bob, other):
        assert client.expect(2) == ["last", "more"]
    again = connect(server, "/news?user=ann")  # a new request is not affected
    again.opening()
    topic.publish("for all")
    assert again.expect(1) == ["for all"]


def test_open_streams_are_listed(topics: Topics, serve: StartUvicorn, connect: Open) -> None:
    now = 10.0
    topics.use_clock(lambda: now)
    server = serve(application(topics))
    assert topics.connections() == []
    ann = connect(server, "/news?user=ann")
    ann.opening()
    now += 5
    connect(server, "/news").opening()
    now += 1
    found = sorted(topics.connections(), key=lambda info: -info.seconds)
    assert [
        (info.kind, info.path, info.client, info.identity, info.seconds, info.unsent)
        for info in found
    ] == [
        ("event_stream", "/news", "127.0.0.1", "ann", 6, 0),
        ("event_stream", "/news", "127.0.0.1", None, 1, 0),
    ]
    ann.close()
    wait_until(lambda: len(topics.connections()) == 1, "the stream has ended")
    assert topics.connections()[0].identity is None


def test_the_list_pauses_so_that_no_loop_is_delayed(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(snapshot, "sleep", pauses.append)

    async def test() -> None:
        requests = [Request(stream_of(topics.topic("news"))) for _ in range(2 * snapshot.BATCH)]
        for request in requests:
            await request.until(b"id: ")
        assert len(topics.connections()) == 2 * snapshot.BATCH
        assert pauses == [snapshot.PAUSE] * 2
        for request in requests:
            request.disconnect()
            await request.task

    run(test)


@pytest.mark.parametrize(
    ("client", "listed"), [(None, "unix"), (["192.0.2.7", 1], "192.0.2.7"), (("name", 1), "name")]
)
def test_the_address_of_a_client_is_that_of_the_scope(
    topics: Topics, client: object, listed: str
) -> None:
    async def test() -> None:
        async with opened(Request(stream_of(topics.topic("news")), client=client)):
            assert [info.client for info in topics.connections()] == [listed]

    run(test)


def test_the_unsent_bytes_of_a_slow_client_are_listed(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        async with opened(Request(stream_of(topic, identity="ann", member="ann"))) as request:
            sending, gate = asyncio.Event(), asyncio.Event()
            keep = request.send

            async def wait(message: Message) -> None:
                sending.set()
                await gate.wait()
                await keep(message)

            request.send = wait  # type: ignore[method-assign]
            topic.publish("x" * 1000)
            await sending.wait()
            [info] = topics.connections()
            assert 1000 < info.unsent < 1100
            topics.close_identity("ann")  # the stream ends after the event
            while topic.members():
                await asyncio.sleep(0)
            gate.set()
            await request.task
            assert request.body.endswith(b"\n\nevent: end\nid: :end\n\n")
            assert topics.connections() == []

    run(test)


def test_identities_are_texts_and_numbers(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        requests = [Request(stream_of(topic, identity=name)) for name in ("ann", 42, NUMBER)]
        for request in requests:
            await request.until(b"id: ")
        for name in ("ann", "42", NUMBER):
            topics.close_identity(name)
        for request in requests:
            await request.task
            assert request.body.endswith(b"id: :end\n\n")

    run(test)
    for wrong in (True, 1.5, b"ann"):
        with pytest.raises(TypeError, match="identity must be a str, an int or a UUID, got "):
            EventStream(topic, identity=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="identity must have 1 to 512 bytes in UTF-8: 0"):
        EventStream(topic, identity="")


def test_a_response_that_was_created_before_the_closing_is_refused(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        early = stream_of(topic, identity="ann")
        other = stream_of(topic, identity="bob")
        topics.close_identity("ann")
        request = Request(early)
        await request.task
        assert [message.get("status") for message in request.sent] == [403, None]
        assert request.body == b""
        for allowed in (other, stream_of(topic, identity="ann")):
            async with opened(Request(allowed)):
                pass

    run(test)


def test_a_closing_while_the_head_is_sent_ends_the_stream(topics: Topics) -> None:
    topic = topics.topic("news")
    topic.publish("secret")

    async def test() -> None:
        request = Request(stream_of(topic, identity="ann", after=""))
        keep = request.send

        async def close(message: Message) -> None:
            await keep(message)
            if message["type"] == "http.response.start":
                topics.close_identity("ann")
                await asyncio.sleep(0)

        request.send = close  # type: ignore[method-assign]
        await request.task
        assert request.sent[0]["status"] == 200
        assert request.body == b"event: end\nid: :end\n\n"
        assert topics.connections() == []

    run(test)


def test_a_closing_before_the_loop_receives_closings_is_not_missed(
    topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Closings.add

    def late(closings: Closings, receiver: Close) -> None:
        topics.close_identity("ann")
        add(closings, receiver)

    monkeypatch.setattr(Closings, "add", late)

    async def test() -> None:
        request = Request(stream_of(topics.topic("news"), identity="ann"))
        await request.task
        assert request.body == b"event: end\nid: :end\n\n"

    run(test)


def test_a_closing_by_another_process_ends_the_first_stream(redis_server: RedisServer) -> None:
    """The process begins to receive closings only with this stream."""
    here, there = (Topics(redis=redis_server.url) for _ in range(2))

    async def test() -> None:
        early = stream_of(here.topic("news"), identity="ann")
        await asyncio.to_thread(there.close_identity, "ann")
        await asyncio.to_thread(there.flush)
        request = Request(early)
        await request.task
        assert request.body.endswith(b"event: end\nid: :end\n\n")

    run(test)
    here.close()
    there.close()


def test_a_middleware_may_change_the_headers_of_an_answer(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        early = stream_of(topic, identity="ann")
        again = stream_of(topic)
        topics.close_identity("ann")
        ended = {"headers": [(b"last-event-id", b":end")]}
        for _ in range(2):
            for response, scope in (early, {}), (again, ended), (again, {"method": "HEAD"}):
                request = Request(response, **scope)
                await request.task
                headers = request.sent[0]["headers"]
                assert b"set-cookie" not in dict(headers)
                headers.append((b"set-cookie", b"session=ann"))

    run(test)


def test_many_streams_are_closed_in_steps(topics: Topics) -> None:
    topic = topics.topic("news")
    count = 3 * STEP + 1

    async def test() -> None:
        requests = [Request(stream_of(topic, identity="ann")) for _ in range(count)]
        for request in requests:
            await request.until(b"id: ")
        topics.close_identity("ann")
        left = [count]
        while left[-1]:
            await asyncio.sleep(0)
            left.append(sum(not request.body.endswith(b"id: :end\n\n") for request in requests))
            assert left[-2] - left[-1] <= STEP
        for request in requests:
            await request.task

    run(test)


def test_the_streams_of_all_event_loops_are_closed(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    several = [connect(serve(application(topics)), "/news?user=ann") for _ in range(2)]
    for client in several:
        client.opening()
    topics.close_identity("ann")
    for client in several:
        assert client.read_rest() == []
        assert client.last_event_id == ":end"


def test_a_closing_survives_an_event_loop_that_was_closed_in_the_middle(topics: Topics) -> None:
    close_on_a_closed_loop(topics)
    gc.collect()  # the unfinished request ends without an error


def close_on_a_closed_loop(topics: Topics) -> None:
    open_on_a_closed_loop(stream_of(topics.topic("news"), identity="ann"))
    assert len(topics.connections()) == 1
    topics.close_identity("ann")
    topics.close_identity("ann")
    assert topics.connections() == []


def test_an_app_closes_the_streams_of_its_topics() -> None:
    app = App()

    async def test() -> None:
        request = Request(stream_of(app.topic("news"), identity="ann"))
        await request.until(b"id: ")
        app.close_identity("ann")
        await request.task
        assert request.body.endswith(b"id: :end\n\n")

    run(test)
    app.close()


PROGRAM = """
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from wsframe.asgi import EventStream, Topics

topics = Topics(redis="{url}")
news = topics.topic("news")


async def stream(request):
    user = request.query_params["user"]
    return EventStream(news, identity=user, member=user)


async def log_out(request):
    topics.close_identity(request.query_params["user"])
    return PlainTextResponse("bye")


app = Starlette(
    routes=[Route("/news", stream), Route("/bye", log_out)], lifespan=topics.lifespan
)
"""


@pytest.mark.slow
def test_a_closing_reaches_all_processes_over_redis(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.format(url=redis_server.url))
    command = ("-m", "uvicorn", "--port", "0", "program:app")
    elsewhere = Topics(redis=redis_server.url)
    news = elsewhere.topic("news")
    with (
        ServerProcess(*command, directory=tmp_path, until=STARTED) as here,
        ServerProcess(*command, directory=tmp_path, until=STARTED) as there,
    ):
        ann = [ChunkedStream(server.port, "/news?user=ann") for server in (here, there)]
        bob = ChunkedStream(there.port, "/news?user=bob")
        for client in (*ann, bob):
            client.opening()
        wait_until(lambda: news.members() == ["ann", "bob"], "both users are members")
        assert answer(here.port, "/bye?user=ann").body == b"bye"
        for client in ann:
            assert client.read_rest() == []
            assert client.last_event_id == ":end"
        wait_until(lambda: news.members() == ["bob"], "one user is a member")
        news.publish("hello")
        assert bob.expect(1) == ["hello"]
        elsewhere.close_identity("bob")  # by a program without streams
        elsewhere.flush()
        assert bob.read_rest() == []
        for client in (*ann, bob):
            client.close()
    elsewhere.close()
