"""The check that a test leaves nothing behind."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from wsframe.server import App
from wsframe.testing import ServeApp, leak_check, wait_until


class Node:
    """An object that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@contextmanager
def failing(text: str) -> Iterator[None]:
    """Expect that a check fails with this text."""
    with pytest.raises(AssertionError, match=text):
        yield


def test_a_thread_is_found() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="worker of the test")
    with failing("threads are still running: .'worker of the test'."), leak_check(timeout=0.01):
        thread.start()
    end.set()
    thread.join()


def test_a_thread_of_a_live_is_found_with_advice() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="wsframe-loop")
    with failing("if it is a Live, pass it to serve_wsgi"), leak_check(timeout=0.01):
        thread.start()
    end.set()
    thread.join()


def test_a_thread_that_is_about_to_end_has_time() -> None:
    end = threading.Event()
    with leak_check():
        threading.Thread(target=end.wait).start()
        threading.Timer(0.02, end.set).start()


@pytest.mark.skipif("sys.platform != 'linux'")
def test_an_open_file_is_found() -> None:
    with failing(r"files were opened and not closed: \[\('\d+', 'socket:"), leak_check():
        sock = socket.socket()
    sock.close()


def test_a_connection_is_found(serve_app: ServeApp) -> None:
    app = App()
    app.sse("/news", app.topic("news"))
    server = serve_app(app)
    with failing("at most the 0 connections"), leak_check(server, timeout=0.01):
        server.stream("/news")


def test_a_reference_cycle_is_found() -> None:
    name = f"{Node.__module__}.Node"
    with (
        failing(f"cycles contain these objects: .'{name}': 2"),
        leak_check(cycles=["other", "tests.testing"]),
    ):
        Node(), Node()
    with leak_check(cycles=["tests.test"]):
        Node()
    gc.disable()
    try:
        with leak_check(cycles=["tests"]):
            """Nothing is left."""
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert not gc.get_debug()


def test_an_error_in_the_body_is_not_replaced() -> None:
    with pytest.raises(KeyError), leak_check(cycles=["tests"]):
        raise KeyError(Node())


def test_a_condition_that_stays_false_is_an_error() -> None:
    with failing(r"^the condition is still false after 0\.01 s: one is two$"):
        wait_until(lambda: False, "one is two", 0.01)
