"""Compression of sent messages, and frames for many clients."""

from __future__ import annotations

import threading
import zlib
from random import Random
from types import ModuleType
from typing import Any

import pytest

from tests.codec.deflate.helpers import (
    COMPRESSED,
    NO_TAKEOVER,
    backends,
    compressing,
    read,
    takeovers,
)
from tests.support.deflated import (
    TAIL,
    compressor,
)
from tests.support.ends import (
    BINARY,
    CLIENT,
    CLOSE,
    FIN,
    NORMAL,
    PING,
    PONG,
    RSV1,
    SERVER,
    TEXT,
    End,
    ends,
)
from tests.support.tools import normals
from tests.support.vectors import (
    payload_of,
)


@ends
@takeovers
@pytest.mark.parametrize(
    ("min_size", "size", "compress", "expected"),
    [
        (64, 63, None, False),
        (64, 64, None, True),
        (64, 63, True, True),
        (64, 64, False, False),
        (64, 10_000, False, False),
        (0, 20, None, True),
        (0, 20, False, False),
        (1000, 999, None, False),
        (1000, 1000, None, True),
    ],
)
def test_messages_from_min_size_on_are_compressed(
    codec: ModuleType,
    min_size: int,
    size: int,
    compress: bool | None,
    expected: bool,
    takeover: bool,
    end: End,
) -> None:
    settings = {"min_size": min_size, **({} if takeover else NO_TAKEOVER)}
    receiver = compressing(codec, end.peer, **settings)
    sender = compressing(codec, end, **settings)
    numbers = memoryview(bytes(size)).cast("B")
    for message in ("x" * size, b"x" * size, bytearray(size), numbers):
        wire = sender.encode(message, compress=compress)
        assert bool(wire[0] & RSV1) == expected
        whole = message if isinstance(message, str) else bytes(message)
        assert receiver.receive(wire) == [whole]


@ends
def test_from_64_bytes_on_messages_are_compressed_by_default(codec: ModuleType, end: End) -> None:
    for size in (63, 64):
        assert bool(compressing(codec, end).encode(b"x" * size)[0] & RSV1) == (size == 64)


def test_the_size_of_an_array_is_in_bytes(codec: ModuleType) -> None:
    numbers = memoryview(bytes(64)).cast("I")
    assert len(numbers) == 16
    assert read(compressing(codec, SERVER).encode(numbers)).first == COMPRESSED | BINARY


@ends
@pytest.mark.parametrize("compress", [None, True])
def test_without_a_context_incompressible_messages_are_sent_uncompressed(
    codec: ModuleType, compress: bool | None, end: End
) -> None:
    noise = Random(0).randbytes(1000)
    sender = compressing(codec, end, **NO_TAKEOVER)
    assert read(sender.encode(noise, compress=compress)) == (FIN | BINARY, noise)
    sender = compressing(codec, end)
    wire = sender.encode(noise, compress=compress)
    assert read(wire).first == COMPRESSED | BINARY
    assert compressing(codec, end.peer).receive(wire) == [noise]


@ends
def test_without_a_context_messages_that_keep_their_size_are_sent_uncompressed(
    codec: ModuleType, end: End
) -> None:
    sender = compressing(codec, end, **NO_TAKEOVER)
    shrinks = []
    for size in range(3, 30):
        message = payload_of(200) + b"x" * size
        stream = compressor()
        whole = stream.compress(message) + stream.flush(zlib.Z_FULL_FLUSH)
        shrinks.append(len(message) - len(whole.removesuffix(TAIL)))
        assert bool(sender.encode(message)[0] & RSV1) == (shrinks[-1] > 0)
    assert 0 in shrinks


@ends
@pytest.mark.parametrize("compress", [None, True, False])
def test_nothing_is_compressed_without_negotiation(
    codec: ModuleType, compress: bool | None, end: End
) -> None:
    connection = end.connect(codec)
    assert connection.deflate is None
    message = "x" * 1000
    assert read(connection.encode(message, compress=compress)) == (FIN | TEXT, message.encode())


def test_a_connection_has_the_negotiated_settings(codec: ModuleType) -> None:
    settings = codec.PerMessageDeflate(level=3)
    assert SERVER.connect(codec, deflate=settings).deflate is settings


@ends
def test_control_frames_are_never_compressed(codec: ModuleType, end: End) -> None:
    connection = compressing(codec, end, min_size=0)
    assert read(connection.ping(bytes(125))) == (PING, bytes(125))
    assert read(connection.pong(bytes(125))) == (PONG, bytes(125))
    reason = "x" * 123
    assert read(connection.close(NORMAL, reason)) == (CLOSE, b"\x03\xe8" + reason.encode())
    for compress in (None, True, False):
        with pytest.raises(codec.StateError):
            connection.encode("x" * 100, compress=compress)


@ends
@takeovers
@pytest.mark.parametrize(
    ("message", "error", "text"),
    [
        ("x" * 100 + "\ud800", UnicodeEncodeError, "surrogates not allowed"),
        (None, TypeError, "bytes-like object, not "),
        (5, TypeError, "bytes-like object, not "),
        (["x" * 100], TypeError, "bytes-like object, not "),
        (memoryview(bytes(1000))[::2], TypeError, "C-contiguous"),
    ],
    ids=["surrogate", "None", "int", "list", "gaps"],
)
@pytest.mark.parametrize("compress", [None, True, False])
def test_an_invalid_message_is_an_error_and_changes_nothing(
    codec: ModuleType,
    compress: bool | None,
    message: Any,
    error: type[Exception],
    text: str,
    takeover: bool,
    end: End,
) -> None:
    settings = {} if takeover else NO_TAKEOVER
    sender, receiver = compressing(codec, end, **settings), compressing(codec, end.peer, **settings)
    for _ in range(2):
        assert receiver.receive(sender.encode("Hello" * 20)) == ["Hello" * 20]
        with pytest.raises(error, match=text):
            sender.encode(message, compress=compress)


class Breakable:
    """A compressor that can fail after the message has entered its window.

    Attributes:
        broken: the method that fails; none at first.
    """

    def __init__(self, real: Any) -> None:
        self._real = real
        self.broken = ""

    def compress(self, data: Any) -> Any:
        return self._call("compress", data)

    def flush(self, mode: int) -> Any:
        return self._call("flush", mode)

    def _call(self, name: str, argument: Any) -> Any:
        result = getattr(self._real, name)(argument)
        if name == self.broken:
            raise MemoryError
        return result


@ends
@backends
@pytest.mark.parametrize("fault", ["compress", "flush", "encode_frame"])
def test_an_error_while_compressing_starts_a_new_window(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, fault: str, backend: str, end: End
) -> None:
    made: list[Breakable] = []
    new_compressor = codec.PerMessageDeflate.new_compressor

    def breakable(settings: Any, bits: int) -> Breakable:
        made.append(Breakable(new_compressor(settings, bits)))
        return made[-1]

    monkeypatch.setattr(codec.PerMessageDeflate, "new_compressor", breakable)
    sender, receiver = compressing(codec, end, backend=backend), compressing(codec, end.peer)
    words = b"words that are there again and again, "
    assert receiver.receive(sender.encode(words * 5)) == [words * 5]
    with monkeypatch.context() as patch:
        if fault == "encode_frame":

            def no_memory(*arguments: Any, **options: Any) -> bytes:
                raise MemoryError

            patch.setattr(codec.deflate, "encode_frame", no_memory)
        else:
            (compressor_in_use,) = made
            compressor_in_use.broken = fault
        with pytest.raises(MemoryError):
            sender.encode(b"not to be looked back at" * 5 + words)
    for _ in range(3):
        wire = sender.encode(b"not to be looked back at" * 5 + words)
        assert receiver.receive(wire) == [b"not to be looked back at" * 5 + words]
    assert len(made) == 2


@ends
def test_concurrent_calls_of_encode_with_a_context_are_an_error(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, end: End
) -> None:
    sender, receiver = compressing(codec, end), compressing(codec, end.peer)
    inside, go_on = threading.Event(), threading.Event()
    encode_frame = codec.deflate.encode_frame

    def waiting(*arguments: Any, **options: Any) -> Any:
        inside.set()
        assert go_on.wait(30)
        return encode_frame(*arguments, **options)

    wires: list[bytes] = []
    thread = threading.Thread(target=lambda: wires.append(sender.encode("first" * 50)))
    with monkeypatch.context() as patch:
        patch.setattr(codec.deflate, "encode_frame", waiting)
        thread.start()
        try:
            assert inside.wait(30)
            for _ in range(2):
                with pytest.raises(RuntimeError, match=r"^another thread is in encode\(\)"):
                    sender.encode("second" * 50)
            # An uncompressed message does not need the window.
            short, ping = sender.encode("short"), sender.ping(b"x")
        finally:
            go_on.set()
            thread.join()
    wires += [short, ping, sender.encode("third" * 50)]
    events = normals(receiver.receive(b"".join(wires)))
    assert events == ["first" * 50, "short", ("Ping", b"x"), "third" * 50]


@ends
def test_without_a_context_threads_may_encode_concurrently(codec: ModuleType, end: End) -> None:
    sender = compressing(codec, end, **NO_TAKEOVER)
    receiver = compressing(codec, end.peer, **NO_TAKEOVER)
    count = 4
    start = threading.Barrier(count)
    wires: list[list[bytes]] = [[] for _ in range(count)]

    def run(number: int) -> None:
        start.wait(30)
        wires[number] += [sender.encode(f"{number}-{i}, " * 50) for i in range(50)]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(count):
        expected = [f"{number}-{i}, " * 50 for i in range(50)]
        assert receiver.receive(b"".join(wires[number])) == expected


def test_few_spare_compressors_are_kept(codec: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    # Settings that no other test uses, because the spare compressors are shared.
    settings = codec.PerMessageDeflate(**NO_TAKEOVER, level=2, memory_level=3)
    senders = [SERVER.connect(codec, deflate=settings) for _ in range(6)]
    made: list[int] = []
    together = threading.Barrier(len(senders))
    new_compressor = codec.PerMessageDeflate.new_compressor

    class Together:
        """A compressor that waits until all senders have one."""

        def __init__(self, settings: Any, bits: int) -> None:
            made.append(bits)
            self._real = new_compressor(settings, bits)
            self.flush = self._real.flush

        def compress(self, data: Any) -> Any:
            together.wait(30)
            return self._real.compress(data)

    def new_together(settings: Any, bits: int) -> Together:
        return Together(settings, bits)

    monkeypatch.setattr(codec.PerMessageDeflate, "new_compressor", new_together)
    for expected in (6, 2, 2):
        made.clear()
        threads = [
            threading.Thread(target=sender.encode, args=("Hello" * 20,)) for sender in senders
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == expected


@backends
@pytest.mark.parametrize("bits", [9, 15])
def test_one_frame_serves_all_clients_with_the_same_settings(
    codec: ModuleType, bits: int, backend: str
) -> None:
    settings = codec.PerMessageDeflate(
        server_no_context_takeover=True, server_max_window_bits=bits, backend=backend
    )
    clients = [CLIENT.connect(codec, deflate=settings) for _ in range(3)]
    server = SERVER.connect(codec, deflate=settings)
    noise = Random(0).randbytes(300)
    for message in ("news, " * 100, b"news, " * 100, "", noise, bytearray(b"x" * 70_000)):
        frame = settings.encode(message)
        expected = message if isinstance(message, str) else bytes(message)
        for i, client in enumerate(clients):
            own = server.encode(f"{i}, " * 50)
            assert client.receive(own + frame + frame) == [f"{i}, " * 50, expected, expected]
    assert read(settings.encode("news, " * 100)).first == COMPRESSED | TEXT
    assert read(settings.encode(noise)) == (FIN | BINARY, noise)
    with pytest.raises(UnicodeEncodeError):
        settings.encode("\ud800")


def test_with_a_context_no_frame_is_shared(codec: ModuleType) -> None:
    for settings in ({}, {"client_no_context_takeover": True}):
        deflate = codec.PerMessageDeflate(**settings)
        with pytest.raises(ValueError, match="requires server_no_context_takeover"):
            deflate.encode("x")
