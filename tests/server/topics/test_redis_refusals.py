"""A Redis whose configuration prevents its use: the error is raised at once."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from tests.support.certificates import Certificates
from tests.support.log import ServerLog
from tests.support.recording import Connect, RecordingTopic
from tests.support.redis_server import RedisServer, Relay
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, BrokerRefused, EventsLost
from wsframe.server.topics.redis.connection import PERMISSIONS

NOT_ALLOWED = {
    "keys": "resetchannels +@all ~other:* &wsframe:*",
    "channels": "+@all ~wsframe:* resetchannels &other:*",
    "commands": "+@all -eval -evalsha ~wsframe:* resetchannels &wsframe:*",
    "scripts": "+@all -script ~wsframe:* resetchannels &wsframe:*",
    "connections": "+@all -client ~wsframe:* resetchannels &wsframe:*",
    "ping": "+@all -ping ~wsframe:* resetchannels &wsframe:*",
}


@pytest.fixture(params=["cluster", "sentinel", "password", "none", "old", *NOT_ALLOWED])
def refusing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Return the URL of a Redis that cannot be used, and the reason."""
    kind = request.param
    options = ("--cluster-enabled", "yes") if kind == "cluster" else ()
    with (
        RedisServer(tmp_path, *options, sentinel=kind == "sentinel") as server,
        Relay(server) as relay,
    ):
        url = server.url
        if kind == "old":
            relay.report_old_version()
            url = relay.url
        if kind in ("password", "none", *NOT_ALLOWED):
            with server.client() as client:
                if kind in NOT_ALLOWED:
                    rules = NOT_ALLOWED[kind].split()
                    client.execute_command("ACL", "SETUSER", "ann", "on", ">secret", *rules)
                    url = url.replace("redis://", "redis://ann:secret@")
                else:
                    client.config_set("requirepass", "secret")
                    if kind == "password":
                        url = url.replace("redis://", "redis://:wrong@")
        yield (
            url,
            {
                "cluster": "cluster mode",
                "sentinel": "Sentinel",
                "password": "invalid username-password pair",
                "none": "Authentication required",
                "old": r"has version 5\..*: 6.2 or newer is required",
            }.get(kind, "access control list must allow"),
        )


def test_a_server_does_not_start(refusing: tuple[str, str]) -> None:
    url, why = refusing
    app = App(redis=url)
    app.sse("/events", source=app.topic("news"))
    with pytest.raises(BrokerRefused, match=f"(?i){why}") as raised:
        app.start("127.0.0.1")
    assert "redis.exceptions" not in "".join(traceback.format_exception(raised.value))
    assert not [each for each in threading.enumerate() if each.name.startswith("wsframe")]


def test_the_permissions_of_the_error_are_sufficient(
    redis_server: RedisServer, connect: Connect
) -> None:
    with redis_server.client() as client:
        rules = f"~wsframe:* resetchannels &wsframe:* -@all {PERMISSIONS}".split()
        client.execute_command("ACL", "SETUSER", "ann", "on", ">secret", *rules)
    streams = connect(
        redis_server.url.replace("redis://", "redis://ann:secret@"), prefix="wsframe:"
    )
    streams.check()
    here = RecordingTopic(streams).follow()
    here.publish_all("1", "2")
    here.expect("1", "2")
    streams.join(here, "Ann")
    wait_until(lambda: streams.members(here) == ["Ann"], "the member is known")
    streams.leave(here, "Ann")
    streams.close(TIMEOUT)


def raises_if(count: int, match: str) -> AbstractContextManager[object]:
    return pytest.raises(EventsLost, match=match) if count else nullcontext()


def test_publish_raises_without_waiting(
    refusing: tuple[str, str], connect: Connect, log: ServerLog
) -> None:
    url, why = refusing
    topic = RecordingTopic(connect(url))
    accepted = 0
    error: BrokerRefused | None = None
    while error is None:  # the refusal is not known at once
        try:
            topic.publish("lost")
            accepted += 1
            topic.streams.flush(0.05)
        except BrokerRefused as refused:
            error = refused
    assert re.search(why, str(error), re.IGNORECASE)
    with raises_if(accepted, f"(?i){accepted} published events? (is|are) lost: .*{why}"):
        topic.streams.close(TIMEOUT)
    log.expect("does not support topics: ")
    log.records.clear()


def test_a_server_starts_without_reaching_redis(
    redis_server: RedisServer, serve: Serve, log: ServerLog
) -> None:
    redis_server.kill()
    app = App(redis=redis_server.url)
    topic = app.topic("news")
    serve(app).stop()
    topic.publish("later")
    redis_server.start()
    app.close()


def test_a_reconfigured_redis_is_used_again(
    tmp_path: Path, connect: Connect, log: ServerLog
) -> None:
    with RedisServer(tmp_path, password="secret") as server:
        streams = connect(server.url, redis_refused_backoff=0.05)
        here = RecordingTopic(streams).follow()
        here.publish_all("1")
        here.expect("1")
        with server.client() as client:
            client.config_set("requirepass", "other")
            # An authenticated connection stays authenticated.
            for name in ("wsframe-writer", "wsframe-reader"):
                assert [
                    client.client_kill_filter(_id=each["id"])
                    for each in client.client_list()
                    if each["name"] == name
                ]
            wait_until(lambda: streams.connection.refusal, "the refusal is known")
            log.expect("does not support topics: ")
            client.config_set("requirepass", "secret")
        wait_until(lambda: not streams.connection.unavailable, "Redis is used again")
        here.publish_all("2")
        here.expect("1", "2")
        streams.close(TIMEOUT)
        log.records.clear()


@pytest.mark.slow
def test_the_command_line_prints_the_reason(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--cluster-enabled", "yes") as server:
        for workers in ("0", "1"):
            command = ["-m", "wsframe.server", "--port", "0", "--redis", server.url]
            done = subprocess.run(
                [sys.executable, *command, "--workers", workers],
                capture_output=True,
                text=True,
                timeout=6 * TIMEOUT,
                check=False,
            )
            assert done.returncode == 1
            assert "cluster mode" in done.stderr
            assert "Traceback" not in done.stderr


# TLS ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_certificate_must_be_for_the_host(tmp_path: Path, connect: Connect, host: str) -> None:
    with RedisServer(tmp_path, certificates=Certificates("another.example")) as server:
        url = server.url.replace("127.0.0.1", host)
        with pytest.raises(BrokerRefused, match="certificate"):
            connect(url).check()
        # Both checks can be switched off.
        connect(f"{url}&ssl_cert_reqs=none").check()
