"""Event streams of topics, over uvicorn."""

from __future__ import annotations

import asyncio
import threading
from queue import Queue
from typing import Annotated

import pytest
from fastapi import Body, FastAPI
from fastapi import Request as FastAPIRequest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.routing import Route

from tests.support.pages import run_block
from tests.support.redis_server import RedisServer
from tests.support.uvicorn_fixtures import StartUvicorn
from tests.support.uvicorn_server import Message, Receive, Send
from tests.support.waiting import wait_until
from wsframe.asgi import EventStream, Topics
from wsframe.server import App, Topic

from .conftest import Open
from .streams import answer


def stream_of(*topics: Topic, **options: object) -> EventStream:
    """Return an application: an event stream without a heartbeat and with a fixed delay."""
    return EventStream(*topics, **{"heartbeat": 0.0, "retry": 0.0, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_events_arrive_in_order(
    topics: Topics, serve: StartUvicorn, connect: Open, http: str, loop: str
) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    topic = topics.topic("news")
    client = connect(serve(stream_of(topic), http=http, loop=loop))
    assert client.head.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert client.head.headers["Cache-Control"] == "no-store, no-transform"
    assert client.opening().startswith(b"id: ")
    published = topic.publish("first", event="kind")
    assert published.reached + published.queued == 1
    event = client.next_event()
    assert (event.data, event.event) == ("first", "kind")
    for number in range(1000):
        topic.publish(number)
    assert client.expect(1000) == [str(number) for number in range(1000)]


def test_events_that_are_published_together_arrive_in_one_chunk(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    topic = topics.topic("news")
    server = serve(stream_of(topic))
    client = connect(server)
    client.opening()
    server.call(lambda: [topic.publish(number) for number in range(8)])
    assert client.more().count(b"data: ") == 8


def test_a_new_client_may_begin_with_the_history(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    topic = topics.topic("news")
    topic.publish("old")
    client = connect(serve(stream_of(topic, after="")))
    topic.publish("new")
    assert client.expect(2) == ["old", "new"]


@pytest.mark.parametrize("by", ["header", "query"])
def test_a_client_that_reconnects_misses_nothing(
    topics: Topics, serve: StartUvicorn, connect: Open, by: str
) -> None:
    topic = topics.topic("news")
    server = serve(stream_of(topic))
    client = connect(server)
    client.opening()
    topic.publish("one")
    assert client.expect(1) == ["one"]
    client.close()
    topic.publish("two")
    if by == "header":
        client = connect(server, "/", ("Last-Event-ID", client.last_event_id))
    else:
        client = connect(server, f"/?lastEventId={client.last_event_id}")
    topic.publish("three")
    assert client.expect(2) == ["two", "three"]


def test_a_client_that_has_missed_events_receives_a_gap(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    topic = topics.topic("news", history=1)
    server = serve(stream_of(topic))
    client = connect(server)
    client.opening()
    client.close()
    for number in range(5):
        topic.publish(number)
    client = connect(server, "/", ("Last-Event-ID", client.last_event_id))
    gap = client.next_event()
    assert (gap.event, client.expect(1)) == ("gap", ["4"])


def test_a_closed_topic_ends_the_stream_for_good(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    topic = topics.topic("news")
    server = serve(stream_of(topic))
    client = connect(server)
    client.opening()
    topic.publish("last")
    topic.close()
    assert client.read_rest() == ["last"]
    assert client.last_event_id == ":end"
    end = answer(server.port, "/", ("Last-Event-ID", ":end"))
    assert (end.status, end.body) == (204, b"")
    wait_until(lambda: not server.tasks, "the request has ended")


def test_topics_of_requests_are_forgotten(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    connect(serve(stream_of(topics.topic("news")))).opening()
    for number in range(100):
        topics.topic(f"room {number}", history=10, max_age=0.0).publish("x")
    assert topics.stats().topics <= 2


def test_two_applications_may_share_the_lifespan_of_topics(topics: Topics) -> None:
    async def live() -> None:
        async with topics.lifespan(None), topics.lifespan(None):
            assert topics.topic("news").publish("event").reached == 0

    asyncio.run(live())


def test_a_head_request_is_answered_without_a_stream(topics: Topics, serve: StartUvicorn) -> None:
    ended = threading.Event()
    server = serve(stream_of(topics.topic("news"), background=BackgroundTask(ended.set)))
    head = answer(server.port, method="HEAD")
    assert ended.wait(10)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert topics.stats().event_streams == 0


def test_a_stream_of_several_topics_resumes_in_all_of_them(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    one, two, three = map(topics.topic, ("one", "two", "three"))
    server = serve(stream_of(one, two))
    client = connect(server)
    opening = client.opening()
    assert opening.count(b"id: ?") == opening.count(b"id: ") == 1
    one.publish("a")
    two.publish("b")
    assert sorted(client.expect(2)) == ["a", "b"]
    client.close()
    one.publish("c")
    two.publish("d")
    client = connect(server, "/", ("Last-Event-ID", client.last_event_id))
    assert sorted(client.expect(2)) == ["c", "d"]
    # A stream of other topics uses only the positions of its own.
    other = serve(stream_of(two, three))
    two.publish("e")
    client = connect(other, "/", ("Last-Event-ID", client.last_event_id))
    assert client.expect(1) == ["e"]
    assert "one" not in client.last_event_id


def test_a_stream_continues_when_one_of_its_topics_is_closed(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    one, two = map(topics.topic, ("one", "two"))
    client = connect(serve(stream_of(one, two)))
    client.opening()
    one.publish("a")
    one.close()
    assert client.expect(1) == ["a"]
    two.publish("b")
    assert client.expect(1) == ["b"]
    two.close()
    assert client.read_rest() == []


def test_a_silent_stream_has_heartbeats(topics: Topics, serve: StartUvicorn, connect: Open) -> None:
    client = connect(serve(stream_of(topics.topic("news"), heartbeat=0.02)))
    client.opening()
    assert [client.more() for _ in range(3)] == [b":\n\n"] * 3


def test_a_heartbeat_may_be_an_event(topics: Topics, serve: StartUvicorn, connect: Open) -> None:
    topic = topics.topic("news")
    client = connect(serve(stream_of(topic, heartbeat=0.02, heartbeat_event="beat")))
    client.opening()
    assert [client.more() for _ in range(2)] == [b"event: beat\ndata: \n\n"] * 2
    topic.publish("a")
    while (event := client.next_event()).event == "beat":
        pass
    assert event.data == "a"


def test_a_stream_begins_with_the_delay_of_a_reconnect(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    client = connect(serve(stream_of(topics.topic("news"), retry=4.0)))
    retry, _, rest = client.opening().partition(b"\n")
    assert retry.startswith(b"retry: ")
    assert 2000 <= int(retry.split()[1]) <= 6000
    assert rest.startswith(b"\nid: ")


def test_members_are_listed_while_they_are_connected(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    topic = topics.topic("news")
    client = connect(serve(stream_of(topic, member="ann")))
    client.opening()
    assert topic.members() == ["ann"]
    client.close()
    wait_until(lambda: not topic.members(), "no member is listed")


def test_an_endpoint_of_fastapi_returns_a_stream(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    app = FastAPI(lifespan=topics.lifespan)

    @app.get("/rooms/{room}")
    async def stream(room: str, request: FastAPIRequest) -> EventStream:
        response = EventStream(topics.topic(room), after="", headers={"X-Room": room})
        response.set_cookie("seen", "yes")
        return response

    @app.post("/rooms/{room}")
    def publish(room: str, text: str) -> int:
        published = topics.topic(room).publish(text)
        return published.reached + published.queued

    server = serve(app, lifespan="on")
    client = connect(server, "/rooms/tea")
    assert client.head.headers["X-Room"] == "tea"
    assert client.head.headers["Set-Cookie"].startswith("seen=yes")
    client.opening()
    assert answer(server.port, "/rooms/tea?text=hello", method="POST").body == b"1"
    assert client.expect(1) == ["hello"]
    assert app.openapi()["paths"]["/rooms/{room}"]["get"]["responses"]["200"]


def test_a_request_with_a_body_is_answered_by_a_stream(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    app = FastAPI()

    @app.post("/ask")
    async def ask(question: Annotated[str, Body()]) -> EventStream:
        topic = topics.topic("answers")
        topic.publish(question.upper())
        return stream_of(topic, after="")

    body = b'"' + b"why" * 20_000 + b'"'
    headers = ("Content-Type", "application/json"), ("Content-Length", str(len(body)))
    client = connect(serve(app), "/ask", *headers, method="POST", body=body)
    assert client.expect(1) == ["WHY" * 20_000]


def test_the_application_of_the_readme_streams(serve: StartUvicorn, connect: Open) -> None:
    names = run_block("wsframe.asgi")
    server = serve(names["app"], lifespan="on")
    client = connect(server, "/rooms/tea")
    client.opening()
    assert answer(server.port, "/rooms/tea?text=hello", method="POST").status == 200
    assert client.expect(1) == ["hello"]


def test_streams_pass_the_middleware_of_starlette(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    topic = topics.topic("news")
    ended = threading.Event()

    async def stream(request: Request) -> EventStream:
        return stream_of(topic, background=BackgroundTask(ended.set))

    async def pass_on(request: Request, call_next):  # type: ignore[no-untyped-def]
        return await call_next(request)

    app = Starlette(
        routes=[Route("/", stream)],
        middleware=[Middleware(GZipMiddleware), Middleware(BaseHTTPMiddleware, dispatch=pass_on)],
    )
    client = connect(serve(app), "/", ("Accept-Encoding", "gzip"))
    client.opening()
    for number in range(3000):
        topic.publish(f"{number} {'x' * 100}")
    assert client.expect(3000)[-1] == f"2999 {'x' * 100}"
    topic.close()
    assert client.read_rest() == []
    assert ended.wait(10)


def test_two_servers_in_threads_send_the_same_events(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    topic = topics.topic("news")
    several = [connect(serve(stream_of(topic))) for _ in range(2)]
    for client in several:
        client.opening()
    assert topics.stats().loops == 2
    assert topics.stats().event_streams == topics.stats().subscriptions == 2
    threads = [threading.Thread(target=topic.publish, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = (client.expect(20) for client in several)
    assert first == second
    assert sorted(map(int, first)) == list(range(20))


def test_a_coroutine_may_publish_to_the_streams_of_its_loop(
    topics: Topics, serve: StartUvicorn, connect: Open
) -> None:
    topic = topics.topic("news")
    streams = stream_of(topic)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] == "/publish":
            for number in range(2000):  # more than the publisher may be ahead
                topic.publish(f"{number} {'x' * 100}")
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})
        else:
            await streams(scope, receive, send)

    server = serve(app)
    client = connect(server)
    client.opening()
    assert answer(server.port, "/publish").status == 200
    assert len(client.expect(2000)) == 2000


def test_topics_of_an_app_are_streamed(serve: StartUvicorn, connect: Open) -> None:
    app = App()
    topic = app.topic("news")
    client = connect(serve(stream_of(topic)))
    client.opening()
    topic.publish("from an app")
    assert client.expect(1) == ["from an app"]


def test_items_of_a_queue_are_streamed(topics: Topics, serve: StartUvicorn, connect: Open) -> None:
    items: Queue[str] = Queue()
    topic = topics.topic("news")
    topic.feed(items)
    client = connect(serve(stream_of(topic)))
    client.opening()
    items.put("an item")
    assert client.expect(1) == ["an item"]


def test_processes_share_topics_over_redis(
    serve: StartUvicorn, connect: Open, redis_server: RedisServer
) -> None:
    here, elsewhere = Topics(redis=redis_server.url), Topics(redis=redis_server.url)
    try:
        app = FastAPI(lifespan=here.lifespan)

        @app.get("/")
        async def stream() -> EventStream:
            return stream_of(here.topic("news"), after="")

        client = connect(serve(app, lifespan="on"))
        elsewhere.topic("news").publish("from elsewhere")
        elsewhere.flush()
        assert client.expect(1) == ["from elsewhere"]
    finally:
        elsewhere.close()
        here.close()
