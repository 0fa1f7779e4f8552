"""Requests to event streams without a server: unusual servers, and errors of their functions."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.support.log import ServerLog
from tests.support.uvicorn_server import Message
from wsframe.asgi import EventStream, Topics
from wsframe.asgi.client import Client
from wsframe.asgi.sends import MAX_PARKED
from wsframe.asgi.stream import Stream
from wsframe.server import App

from .streams import Request, opened
from .test_eventstream import stream_of


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function in an event loop."""

    async def main() -> None:
        await test()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def until_count(request: Request, text: bytes, count: int) -> None:
    """Wait until the body contains this text several times."""
    async with asyncio.timeout(10):
        while request.body.count(text) < count:
            await asyncio.sleep(0.001)


def test_an_error_of_the_server_ends_the_request(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        request = Request(stream_of(topic))
        await request.until(b"id: ")

        async def fail(message: Message) -> None:
            raise LookupError("no connection")

        request.send = fail  # type: ignore[method-assign]
        topic.publish("lost")
        with pytest.raises(LookupError, match="no connection"):
            await request.task
        assert topic.stats().subscribers == 0

    run(test)


def test_an_oserror_of_the_server_is_the_end_of_the_connection(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        request = Request(stream_of(topic))
        await request.until(b"id: ")

        async def fail(message: Message) -> None:
            await asyncio.sleep(0)
            raise OSError("the client has disconnected")

        request.send = fail  # type: ignore[method-assign]
        topic.publish("lost")
        await request.task

    run(test)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_cancelled_send_ends_only_its_request(topics: Topics, at_once: bool) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        request = Request(stream_of(topic))
        await request.until(b"id: ")

        async def fail(message: Message) -> None:
            if not at_once:
                await asyncio.sleep(0)
            raise asyncio.CancelledError

        request.send = fail  # type: ignore[method-assign]
        async with opened(Request(stream_of(topic))) as other:
            topic.publish("lost for one")
            await other.until(b"data: lost for one\n")
            with pytest.raises(asyncio.CancelledError):
                await request.task
            topic.publish("more")
            await other.until(b"data: more\n")

    run(test)


def test_an_error_of_the_first_send_is_raised(topics: Topics) -> None:
    async def test() -> None:
        request = Request(stream_of(topics.topic("news")))

        async def fail(message: Message) -> None:
            raise OSError("gone")

        request.send = fail  # type: ignore[method-assign]
        with pytest.raises(OSError, match="gone"):
            await request.task

    run(test)


@pytest.mark.parametrize("error", [TimeoutError, asyncio.CancelledError])
def test_an_exception_while_waiting_for_the_client_ends_the_stream(
    topics: Topics, error: type[BaseException]
) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        request = Request(stream_of(topic))
        failing = asyncio.Event()

        async def fail() -> Message:
            await failing.wait()
            raise error

        request.receive = fail  # type: ignore[method-assign]
        await request.until(b"id: ")
        failing.set()
        with pytest.raises(error):
            await request.task
        assert topic.stats().subscribers == 0

    run(test)


def test_a_send_that_waits_delays_only_later_data_of_its_client(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        async with (
            opened(Request(stream_of(topic))) as slow,
            opened(Request(stream_of(topic))) as quick,
        ):
            gate = asyncio.Event()
            keep = slow.send

            async def wait(message: Message) -> None:
                await gate.wait()
                await keep(message)

            slow.send = wait  # type: ignore[method-assign]
            for number in range(5):
                topic.publish(number)
                await quick.until(b"data: %d\n" % number)
            assert b"data" not in slow.body
            gate.set()
            await slow.until(b"data: 4\n")
            assert [slow.body.count(b"data: %d\n" % number) for number in range(5)] == [1] * 5

    run(test)


def test_a_send_runs_in_one_task_and_in_the_context_of_its_request(topics: Topics) -> None:
    topic = topics.topic("news")
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    async def test() -> None:
        name.set("request")
        async with opened(Request(stream_of(topic))) as request:
            keep, tasks = request.send, []

            async def wait(message: Message) -> None:
                async with asyncio.timeout(5):  # it depends on the current task
                    tasks.append((asyncio.current_task(), name.get()))
                    name.set("send")
                    for _ in range(3):
                        await asyncio.sleep(0)
                        tasks.append((asyncio.current_task(), name.get()))
                await keep(message)

            request.send = wait  # type: ignore[method-assign]
            topic.publish("a")
            await request.until(b"data: a\n")
            topic.publish("b")
            await request.until(b"data: b\n")
            assert len({task for task, _ in tasks[:4]}) == 1
            assert tasks[0][0] is not asyncio.current_task()
            assert [value for _, value in tasks[:4]] == ["request", *["send"] * 3]

    run(test)


def test_sends_that_wait_use_a_task_each_and_the_others_none(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        requests = [Request(stream_of(topic)) for _ in range(10)]
        for request in requests:
            await request.until(b"id: ")
        before = len(asyncio.all_tasks())
        topic.publish("at once")
        for request in requests:
            await request.until(b"at once")
        assert len(asyncio.all_tasks()) == before
        gate = asyncio.Event()
        for request in requests[:3]:
            keep = request.send

            async def wait(message: Message, keep: Any = keep) -> None:
                await gate.wait()
                await keep(message)

            request.send = wait  # type: ignore[method-assign]
        topic.publish("later")
        for request in requests[3:]:
            await request.until(b"later")
        # The clients are served in any order, so a task may be parked after the sends that wait.
        assert len(asyncio.all_tasks()) - before in (2, 3)
        gate.set()
        for request in requests:
            await request.until(b"later")
            request.disconnect()
        for request in requests:
            await request.task
        await asyncio.sleep(0)

    run(test)


def test_few_tasks_are_left_of_many_sends_that_have_waited(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        requests = [Request(stream_of(topic)) for _ in range(2 * MAX_PARKED)]
        for request in requests:
            await request.until(b"id: ")
        before = len(asyncio.all_tasks())
        gate = asyncio.Event()
        for request in requests:
            keep = request.send

            async def wait(message: Message, keep: Any = keep) -> None:
                await gate.wait()
                await keep(message)

            request.send = wait  # type: ignore[method-assign]
        topic.publish("event")
        while len(asyncio.all_tasks()) < before + len(requests) - 1:
            await asyncio.sleep(0)
        gate.set()
        for request in requests:
            await request.until(b"event")
        while len(asyncio.all_tasks()) > before + MAX_PARKED:
            await asyncio.sleep(0)
        for request in requests:
            request.disconnect()
        for request in requests:
            await request.task
        await asyncio.sleep(0)

    run(test)


def test_a_server_may_return_any_awaitable(topics: Topics) -> None:
    class Waiting:
        def __init__(self, request: Request, message: Message) -> None:
            self._request, self._message = request, message

        def __await__(self) -> Generator[Any, None, None]:
            yield from asyncio.sleep(0).__await__()
            self._request.sent.append(self._message)

    topic = topics.topic("news")

    async def test() -> None:
        request = Request(stream_of(topic))
        await request.until(b"id: ")
        response = stream_of(topic)

        def send(message: Message) -> Waiting:
            return Waiting(request, message)

        other = asyncio.create_task(response(request.scope, request.receive, send))
        await until_count(request, b"id: ", 2)
        topic.publish("any")
        await until_count(request, b"data: any\n", 2)
        request.disconnect()
        request.disconnect()
        await asyncio.gather(other, request.task)

    run(test)


def test_the_end_of_a_request_during_a_send_is_survived(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        request = Request(stream_of(topic, send_timeout=5.0))
        await request.until(b"id: ")
        sending, gate = asyncio.Event(), asyncio.Event()

        async def wait(message: Message) -> None:
            sending.set()
            await gate.wait()

        request.send = wait  # type: ignore[method-assign]
        topic.publish("a")
        await sending.wait()
        request.disconnect()
        await request.task
        gate.set()
        for _ in range(5):
            await asyncio.sleep(0)

    run(test)


@pytest.mark.parametrize(
    ("client", "named"), [(None, "a local client"), (("192.0.2.7", 1), "192.0.2.7")]
)
def test_the_log_names_a_client_that_accepts_no_data(
    topics: Topics, log: ServerLog, client: object, named: str
) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        request = Request(stream_of(topic, send_timeout=0.01), client=client, path="/named")
        await request.until(b"id: ")
        gate = asyncio.Event()

        async def wait(message: Message) -> None:
            await gate.wait()

        request.send = wait  # type: ignore[method-assign]
        topic.publish("a")
        await request.task
        gate.set()
        for _ in range(5):
            await asyncio.sleep(0)

    run(test)
    log.expect(f"closing the event stream of {named} on /named: ", logging.WARNING)


def test_a_loop_that_ends_ends_the_sends(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        request = Request(stream_of(topic))
        await request.until(b"id: ")

        sending = asyncio.Event()

        async def wait(message: Message) -> None:
            sending.set()
            await asyncio.Event().wait()

        request.send = wait  # type: ignore[method-assign]
        topic.publish("a")
        await sending.wait()

    asyncio.run(test())  # cancels all tasks
    assert topic.stats().subscribers == 0


def test_publishing_survives_an_event_loop_that_was_closed_in_the_middle(topics: Topics) -> None:
    publish_to_a_closed_loop(topics)
    gc.collect()  # the unfinished request ends without an error


def publish_to_a_closed_loop(topics: Topics) -> None:
    topic = topics.topic("news")
    open_on_a_closed_loop(stream_of(topic))
    assert topics.stats().loops == 1
    topic.publish("not received")
    topic.publish("again")
    assert topics.stats().loops == 0


def open_on_a_closed_loop(response: EventStream) -> None:
    """Open a stream, and close its event loop without ending the request."""
    loop = asyncio.new_event_loop()

    async def wait() -> Message:
        message: Message = await loop.create_future()
        return message

    async def open_stream() -> Request:
        request = Request(response)
        request.receive = wait  # type: ignore[method-assign]
        await request.until(b"id: ")
        return request

    request = loop.run_until_complete(open_stream())
    loop.close()
    for task in (request.task, *asyncio.all_tasks(loop)):
        task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_an_internal_error_ends_only_its_stream(
    topics: Topics, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, other = topics.topic("news"), topics.topic("other")
    topic.publish("old")
    put = Stream.put

    def fail(stream: Stream, block: bytes) -> None:
        if stream.is_subscribed("news"):
            raise LookupError("a fault in wsframe")
        put(stream, block)

    async def test() -> None:
        async with opened(Request(stream_of(other))) as fine:
            monkeypatch.setattr(Stream, "put", fail)
            await Request(stream_of(topic, after="")).task
            other.publish("still here")
            await fine.until(b"data: still here\n")

    run(test)
    log.expect("internal error in an event stream (please report this)")
    assert topic.stats().subscribers == 0


def test_a_failed_delivery_ends_the_streams_so_that_they_miss_nothing(
    topics: Topics, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = topics.topic("news")

    def fail(client: Client, data: bytes) -> bool:
        raise LookupError("a fault in wsframe")

    async def test() -> None:
        request = Request(stream_of(topic))
        await request.until(b"id: ")
        await asyncio.sleep(0)
        monkeypatch.setattr(Client, "send", fail)
        topic.publish("lost")
        await request.task

    run(test)
    log.expect("internal error in an event stream (please report this)")
    assert topic.stats().subscribers == 0


def test_close_ends_all_streams(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        requests = [Request(stream_of(topic)) for _ in range(100)]
        for request in requests:
            await request.until(b"id: ")
        topic.publish("last")
        await asyncio.to_thread(topics.close)
        for request in requests:
            await request.task
            assert request.sent[-1]["more_body"] is False
            assert b"data: last\n" in request.body
        async with opened(Request(stream_of(topic))) as request:  # a later stream
            topic.publish("again")
            await request.until(b"data: again\n")

    run(test)


def test_close_ends_a_stream_that_ends_already(topics: Topics) -> None:
    topic = topics.topic("news")

    async def test() -> None:
        request = Request(stream_of(topic, send_timeout=0.0))
        await request.until(b"id: ")
        sending, gate = asyncio.Event(), asyncio.Event()
        keep = request.send

        async def wait(message: Message) -> None:
            sending.set()
            await gate.wait()
            await keep(message)

        request.send = wait  # type: ignore[method-assign]
        topic.publish("last")
        await sending.wait()
        for _ in range(2):
            await asyncio.to_thread(topics.close)
        gate.set()
        await request.task
        assert b"data: last\n" in request.body

    run(test)


def test_only_http_requests_are_answered(topics: Topics) -> None:
    async def test() -> None:
        request = Request(stream_of(topics.topic("news")), type="websocket")
        with pytest.raises(RuntimeError, match="answers HTTP requests, not 'websocket'"):
            await request.task

    run(test)


@pytest.mark.parametrize("client", [None, ("testclient", 5), ("::1", 5), ("fe80::1%lo", 5)])
def test_clients_may_have_any_address(topics: Topics, client: tuple[str, int] | None) -> None:
    async def test() -> None:
        async with opened(Request(stream_of(topics.topic("news")), client=client)):
            pass

    run(test)


def test_invalid_arguments_are_errors(topics: Topics) -> None:
    topic = topics.topic("news")
    with pytest.raises(TypeError, match="expected a Topic, got 'news'"):
        EventStream("news")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must belong to the same App or Topics object"):
        EventStream(topic, App().topic("news"))
    for name in ("retry", "heartbeat", "send_timeout"):
        with pytest.raises(ValueError, match=f"{name} must not be negative: -1"):
            EventStream(topic, **{name: -1})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=name):
            EventStream(topic, **{name: float("nan")})  # type: ignore[arg-type]


def test_an_invalid_type_of_heartbeats_is_an_error(topics: Topics) -> None:
    topic = topics.topic("news")
    with pytest.raises(ValueError, match="heartbeat_event must be another type"):
        EventStream(topic, heartbeat_event="gap")
    with pytest.raises(ValueError, match="heartbeat_event requires heartbeat"):
        EventStream(topic, heartbeat=0, heartbeat_event="beat")


def test_headers_may_be_repeated_and_are_checked(topics: Topics) -> None:
    topic = topics.topic("news")
    cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]
    found = EventStream(topic, headers=cookies).raw_headers
    assert [value for name, value in found if name == b"set-cookie"] == [b"a=1", b"b=2"]
    for name, value, error in [
        ("Content-Type", "text/plain", "header Content-Type is set by the server"),
        ("cache-control", "max-age=1", "header cache-control is set by the server"),
        ("X-A", "a\r\nX-B: c", "must not contain control characters"),
    ]:
        with pytest.raises(ValueError, match=error):
            EventStream(topic, headers={name: value})


def test_starlette_is_not_required(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        """
import asyncio, sys
sys.modules["starlette"] = None
from wsframe.asgi import EventStream, Topics
from wsframe.asgi.client import Client
from wsframe.asgi.stream import Stream

async def main():
    topics, sent = Topics(), []
    events = asyncio.Queue()
    async def send(message): sent.append(message)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    stream = EventStream(topics.topic("news"), headers={"X-A": "b"})
    task = asyncio.create_task(stream(scope, events.get, send))
    while len(sent) < 2: await asyncio.sleep(0.001)
    assert (b"x-a", b"b") in sent[0]["headers"]
    events.put_nowait({"type": "http.disconnect"})
    await task
    topics.close()

asyncio.run(main())
"""
    )
    subprocess.run([sys.executable, program], check=True, timeout=60)
