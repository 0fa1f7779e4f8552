"""A server, its clients, and the proof that nothing of them stays behind."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from tests.support.certificates import Certificates
from tests.support.clients import TIMEOUT, Client, StreamClient, WebSocketClient
from tests.support.redis_server import RedisServer
from wsframe.server import App, EventsLost, Server
from wsframe.server.reports.loggers import background
from wsframe.server.timing import Timing
from wsframe.server.topics.redis.streams import RedisStreams

FILES = "/proc/self/fd"
MANY_FILES = 4000

# The ssl module does not close what it is given to wrap and finds to be reset; that is closed when
# it is forgotten, which is at once.
resets_under_tls = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")

AnyClient = TypeVar("AnyClient", bound=Client)


class ServerLog(logging.Handler):
    """What the server logs, to be waited for from the test's thread."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] = []
        self._arrived = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record."""
        with self._arrived:
            self._records.append(record)
            self._arrived.notify_all()

    @property
    def records(self) -> list[logging.LogRecord]:
        """All that has been logged before this is asked for, and was not taken away."""
        assert background.flush(TIMEOUT)
        return self._records

    def expect(self, text: str, level: int = logging.ERROR) -> logging.LogRecord:
        """Wait for a record with this text, and take it away; it is no surprise any more."""

        def find() -> logging.LogRecord | None:
            fits = (r for r in self._records if r.levelno == level and text in r.getMessage())
            return next(fits, None)

        with self._arrived:
            record = self._arrived.wait_for(find, TIMEOUT)
            assert record is not None, f"{text!r} was not logged"
            self._records.remove(record)
            return record


@pytest.fixture(autouse=True)
def log() -> Iterator[ServerLog]:
    """The server's log; an error in it that the test has not taken away fails the test."""
    logger = logging.getLogger("wsframe.server")
    handler = ServerLog()
    logger.addHandler(handler)
    yield handler
    assert background.close(TIMEOUT)
    logger.removeHandler(handler)
    errors = [record for record in handler.records if record.levelno >= logging.ERROR]
    assert not [logging.Formatter().format(record) for record in errors]


def open_files() -> dict[str, str]:
    """What every file descriptor is, on systems that show it."""
    if not os.path.isdir(FILES):
        return {}
    files = {}
    for number in os.listdir(FILES):
        try:
            files[number] = os.readlink(f"{FILES}/{number}")
        except FileNotFoundError:
            continue  # the one that the listing itself has used
    return files


@pytest.fixture(autouse=True)
def nothing_left_behind(log: ServerLog) -> Iterator[None]:
    """No thread and no open file outlives a test."""
    threads, files = set(threading.enumerate()), open_files()
    yield
    background.close(TIMEOUT)
    deadline = time.monotonic() + 5
    for thread in set(threading.enumerate()) - threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not [thread for thread in set(threading.enumerate()) - threads if thread.is_alive()]
    assert not set(open_files().items()) - set(files.items())


class Serve(Protocol):
    """Start a server."""

    def __call__(
        self,
        app: App,
        *,
        host: str = ...,
        **options: Any,
    ) -> Server: ...


def stop_within(server: Server, seconds: float) -> None:
    """Stop a server; one that does not stop is a failure and no hang."""
    stopping = threading.Thread(target=server.stop, daemon=True)
    stopping.start()
    stopping.join(seconds)
    assert not stopping.is_alive(), "the server does not stop"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers, on free ports of 127.0.0.1, that are stopped when the test is over."""
    with ExitStack() as servers:

        def start(app: App, *, host: str = "127.0.0.1", **options: Any) -> Server:
            # The same loops on every Python: the tests look at them.
            server = app.start(host, **{"loops": 1, **options})
            servers.callback(stop_within, server, 20)
            return server

        yield start


class Clients:
    """Opens clients that are closed when the test is over, before the servers stop."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def connect(self, server: Server, **options: Any) -> Client:
        """A socket and no word yet."""
        return self._keep(Client(server.port, **options))

    def websocket(
        self, server: Server, target: str, *headers: tuple[str, str], **options: Any
    ) -> WebSocketClient:
        """A WebSocket."""
        return self._keep(WebSocketClient(server.port, target, *headers, **options))

    def stream(
        self, server: Server, target: str, *headers: tuple[str, str], **options: Any
    ) -> StreamClient:
        """An event stream."""
        return self._keep(StreamClient(server.port, target, *headers, **options))

    def _keep(self, client: AnyClient) -> AnyClient:
        self._stack.callback(client.close)
        return client


@pytest.fixture
def clients(serve: Serve) -> Iterator[Clients]:
    """The clients of a test."""
    with ExitStack() as stack:
        yield Clients(stack)


@pytest.fixture
def many_files() -> Iterator[None]:
    """This process, and those that it starts, may have thousands of files."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limits[1] < MANY_FILES:
        pytest.skip("this process may not have so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture(scope="session")
def certificates() -> Certificates:
    """For TLS."""
    return Certificates()


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Look again and again until it is so, where there is nothing to wait on."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def until_it_stands_still(value: Callable[[], int]) -> None:
    """Wait until the number has not changed for a while."""
    last, still = value(), 0
    while still < 10:
        time.sleep(0.03)
        now = value()
        still = still + 1 if now == last else 0
        last = now


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own."""
    with RedisServer(tmp_path) as redis_server:
        yield redis_server


class Connect(Protocol):
    """Makes what each process has one of."""

    def __call__(self, url: str, prefix: str = ..., **timing: float) -> RedisStreams: ...


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes what each process has one of; closed when the test is over."""
    with ExitStack() as stack:

        def close(streams: RedisStreams) -> None:
            with suppress(EventsLost):  # those who care have looked
                streams.close(TIMEOUT)

        def make(url: str, prefix: str = "wsframe:", **timing: float) -> RedisStreams:
            streams = RedisStreams(url, prefix, Timing(**timing))  # type: ignore[arg-type]
            stack.callback(close, streams)
            stack.callback(streams.channels.stop)
            return streams

        yield make


@pytest.fixture
def streams(redis_server: RedisServer, connect: Connect) -> RedisStreams:
    return connect(redis_server.url)


@pytest.fixture
def others(redis_server: RedisServer, connect: Connect) -> RedisStreams:
    """Those of another process."""
    return connect(redis_server.url)
