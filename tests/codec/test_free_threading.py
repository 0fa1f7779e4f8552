"""Many threads at once: shared objects stay consistent, and objects with one owner raise errors."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from random import Random
from types import ModuleType
from typing import Any, TypeVar

import pytest

from tests.support.ends import FIN, PING, TEXT, End, ends
from tests.support.tools import normals
from tests.support.vectors import RFC_ACCEPT, RFC_KEY

THREADS = 6

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _threads_take_turns_often() -> Iterator[None]:
    """Switch threads very often if there is a GIL."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def together(tasks: list[Callable[[], T]]) -> list[T]:
    """Start a thread for each task, all at the same moment; return the results."""
    start = threading.Barrier(len(tasks))

    def run(task: Callable[[], T]) -> T:
        start.wait(30)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result() for future in [pool.submit(run, task) for task in tasks]]


def in_each_thread(task: Callable[[int], T]) -> list[T]:
    """Run the task in all threads at once, with the number of the thread."""
    return together([partial(task, number) for number in range(THREADS)])


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="needs a Python without a GIL"
)
def test_the_import_does_not_enable_the_gil(codec: ModuleType) -> None:
    environment = {**os.environ, "WSFRAME_PURE": "0" if codec.ACCELERATED else "1"}
    environment.pop("PYTHON_GIL", None)
    program = "import sys, wsframe; print(wsframe.ACCELERATED, sys._is_gil_enabled())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == f"{codec.ACCELERATED} False\n", done.stderr


# Functions ----------------------------------------------------------------------------------------


def test_kernels_return_the_same_in_many_threads(codec: ModuleType) -> None:
    payloads = [Random(size).randbytes(size) for size in (0, 5, 125, 1000, 4096, 70_000)]
    key = b"\x01\x02\x03\x04"
    masked = [codec.mask(payload, key) for payload in payloads]
    frames = [codec.encode_frame(2, payload, masking_key=key) for payload in payloads]
    event = codec.ServerSentEvent("one\ntwo", event="e", id="7", retry=3)

    def run(_: int) -> None:
        for _ in range(20):
            assert codec.accept_key(RFC_KEY) == RFC_ACCEPT
            assert event.encode() == b"event: e\nid: 7\nretry: 3\ndata: one\ndata: two\n\n"
            for payload, expected, frame in zip(payloads, masked, frames, strict=True):
                assert codec.mask(payload, key) == expected
                assert codec.encode_frame(2, payload, masking_key=key) == frame
                buffer = bytearray(payload)
                codec.mask_into(buffer, key)
                assert buffer == expected

    in_each_thread(run)


@pytest.mark.unmeasured
def test_masking_keys_are_unique_and_come_from_urandom(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[bytes] = []
    urandom = os.urandom

    def recorded(size: int) -> bytes:
        block = urandom(size)
        blocks.append(block)
        return block

    def new_key() -> bytes:
        frame: bytes = codec.encode_frame(1, masking_key=True)
        return frame[2:]

    monkeypatch.setattr(os, "urandom", recorded)
    while not blocks:  # until the stock is empty
        new_key()
    used = in_each_thread(lambda _: [new_key() for _ in range(20_000)])
    given = Counter(block[i : i + 4] for block in blocks for i in range(0, len(block), 4))
    assert Counter(key for keys in used for key in keys) <= given


# One connection -----------------------------------------------------------------------------------


@ends
def test_receive_has_one_owner_and_loses_no_message(codec: ModuleType, end: End) -> None:
    connection = end.connect(codec)

    def run(number: int) -> list[Any]:
        """Pass messages until all are accepted; return the events, in this thread's order."""
        events: list[Any] = []
        for i in range(60):
            text = f"thread {number} {i} "
            wire = end.wire(FIN | TEXT, text.encode() + b"x" * 500)
            wire += end.wire(TEXT, text.encode()) + end.wire(PING, b"between")
            wire += end.wire(FIN, b"in two")
            taken = None
            while taken is None:
                with suppress(RuntimeError):  # another thread is in receive()
                    taken = connection.receive(wire)
            events += taken
        return events

    for number, events in enumerate(in_each_thread(run)):
        assert normals(events) == [
            event
            for i in range(60)
            for event in (
                f"thread {number} {i} " + "x" * 500,
                ("Ping", b"between"),
                f"thread {number} {i} in two",
            )
        ]
    assert connection.receive(end.wire(FIN | TEXT, b"still there")) == ["still there"]


def agreement(codec: ModuleType, *, takeover: bool) -> Any:
    return codec.PerMessageDeflate(
        server_no_context_takeover=not takeover, client_no_context_takeover=not takeover
    )


def message(number: int, i: int) -> bytes:
    """Return a unique message, which inflates in any order."""
    return Random(number * 1000 + i).randbytes(400)


def check_frames(
    codec: ModuleType, end: End, deflate: Any, frames: list[tuple[bytes, bytes]]
) -> None:
    """Check that the frames from this end contain the original messages."""
    other = end.peer.connect(codec, deflate=deflate)
    for payload, frame in frames:
        assert other.receive(frame) == [payload]


@ends
@pytest.mark.parametrize("deflated", [False, True], ids=["plain", "without-takeover"])
def test_any_thread_may_encode_without_a_context(
    codec: ModuleType, end: End, deflated: bool
) -> None:
    deflate = agreement(codec, takeover=False) if deflated else None
    connection = end.connect(codec, deflate=deflate)

    def run(number: int) -> list[tuple[bytes, bytes]]:
        payloads = [message(number, i) * 2 for i in range(50)]
        return [(payload, connection.encode(payload)) for payload in payloads]

    for frames in in_each_thread(run):
        check_frames(codec, end, deflate, frames)


@ends
def test_a_context_has_one_owner_and_is_not_corrupted(codec: ModuleType, end: End) -> None:
    deflate = agreement(codec, takeover=True)
    connection = end.connect(codec, deflate=deflate)

    def run(number: int) -> list[tuple[bytes, bytes]]:
        frames = []
        for i in range(40):
            payload = message(number, i)
            with suppress(RuntimeError):  # another thread is in encode()
                frames.append((payload, connection.encode(payload)))
        return frames

    frames = [frame for frames in in_each_thread(run) for frame in frames]
    frames.append((b"still there", connection.encode(b"still there", compress=True)))
    check_frames(codec, end, deflate, frames)


@ends
def test_concurrent_calls_of_encode_with_a_context_are_an_error(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    inside, go_on = threading.Event(), threading.Event()
    new_compressor = codec.PerMessageDeflate.new_compressor

    def waiting(*arguments: Any) -> Any:
        inside.set()
        assert go_on.wait(30)
        return new_compressor(*arguments)

    deflate = agreement(codec, takeover=True)
    connection = end.connect(codec, deflate=deflate)
    payload = b"a message " * 20
    frames: list[tuple[bytes, bytes]] = []
    thread = threading.Thread(target=lambda: frames.append((payload, connection.encode(payload))))
    with monkeypatch.context() as patch:
        patch.setattr(codec.PerMessageDeflate, "new_compressor", waiting)
        thread.start()
        try:
            assert inside.wait(30)
            with pytest.raises(RuntimeError, match=r"^another thread is in encode\(\)"):
                connection.encode(payload)
            frames.append((b"short", connection.encode(b"short")))  # not compressed
        finally:
            go_on.set()
            thread.join()
    frames.append((payload, connection.encode(payload)))
    assert len(frames) == 3
    check_frames(codec, end, deflate, frames)


@ends
def test_only_one_of_many_threads_closes(codec: ModuleType, end: End) -> None:
    for _ in range(50):
        connection = end.connect(codec)

        def close(number: int, connection: Any = connection) -> bytes | None:
            try:
                frame: bytes = connection.close(3000 + number)
                return frame
            except codec.StateError:
                return None

        frames = [frame for frame in in_each_thread(close) if frame is not None]
        assert len(frames) == 1
        assert connection.close_sent
