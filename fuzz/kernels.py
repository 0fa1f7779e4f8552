"""The compiled and the pure kernels: equal results or errors for any arguments."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tests.support.tools import outcome

from .inputs import Codecs, Draw

LIMITS = (1 << 20, 0, 1, 125, 126, 65535, 65536, -1, (1 << 63) - 1)


class Number(int):
    """A subclass of int."""


class Text(str):
    """A subclass of str."""

    __slots__ = ()


def check(codecs: Codecs, data: bytes) -> None:
    """Call one kernel twice, with equal arguments."""
    ours, theirs = call(codecs.compiled, Draw(data)), call(codecs.pure, Draw(data))
    assert ours == theirs, f"{ours!r}\n{theirs!r}"


def call(codec: ModuleType, draw: Draw) -> object:
    """Return the result or the error of one kernel, and the arguments that it has changed."""
    kernel: Callable[[ModuleType, Draw], object] = draw.one_of(KERNELS)
    return kernel(codec, draw)


def buffer(draw: Draw) -> Any:
    """Return a bytes-like object of any kind, or another object."""
    data = draw.data(draw.number(300))
    if draw.number(99) == 99:
        data *= 3000
    return BUFFERS[draw.number(len(BUFFERS) - 1)](data)


def released(data: bytes) -> memoryview:
    view = memoryview(data)
    view.release()
    return view


BUFFERS: list[Callable[[bytes], Any]] = [
    bytes,
    bytearray,
    memoryview,
    lambda data: memoryview(bytearray(b"xx" + data))[2:],
    lambda data: memoryview(data)[::2],
    lambda data: array("H", data[: len(data) // 2 * 2]),
    lambda data: data.decode("latin-1"),
    lambda data: data.decode("utf-16", "replace"),
    lambda data: data.decode("utf-16", "surrogatepass") if len(data) == 2 else "\ud800",
    lambda data: Text(data.decode("latin-1")),
    released,
    len,
    list,
    lambda data: None,
]


def masking_key(draw: Draw) -> Any:
    """Return four bytes in most cases."""
    data = draw.data(4)
    return draw.one_of((data.ljust(4, b"\0"), bytearray(data), data, None, True, False, 7, "abcd"))


def number(draw: Draw, last: int) -> Any:
    """Return a number from 0 to ``last`` in most cases."""
    small = draw.number(last)
    large = draw.number(1 << 63, -(1 << 63)) * draw.one_of((1, 5))
    return draw.one_of(
        (small, small, small, Number(small), last + 1, large, small == 1, float(small), "1", None)
    )


def accept_key(codec: ModuleType, draw: Draw) -> object:
    key = draw.one_of((draw.text(24), draw.data(24).decode("latin-1"), buffer(draw)))
    return outcome(lambda: repr(codec.accept_key(key)))


def mask(codec: ModuleType, draw: Draw) -> object:
    payload, key = buffer(draw), masking_key(draw)
    return outcome(lambda: repr(codec.mask(payload, key)))


def mask_into(codec: ModuleType, draw: Draw) -> object:
    target, key, offset = buffer(draw), masking_key(draw), number(draw, 9)
    result = outcome(lambda: codec.mask_into(target, key, offset))
    return result, outcome(lambda: bytes(target))


def encode_frame(codec: ModuleType, draw: Draw) -> object:
    opcode, payload = number(draw, 15), buffer(draw)
    fin, rsv, key = draw.one_of((True, False, 1, "", None)), number(draw, 7), masking_key(draw)

    def encode() -> object:
        frame: bytes = codec.encode_frame(opcode, payload, fin=fin, rsv=rsv, masking_key=key)
        if key is not True:
            return frame
        _, _, length, end = codec.kernels.parse_frame(frame, 0)
        assert len(frame) == end + 4 + length
        return frame[:end], codec.mask(frame[end + 4 :], frame[end : end + 4])

    return outcome(encode)


def place(draw: Draw) -> int:
    """Return a start position, which is 0 in most cases."""
    start: int = draw.one_of((0, 0, 0, draw.number(20), draw.number((1 << 63) - 1, -(1 << 63))))
    return start


def parse_frame(codec: ModuleType, draw: Draw) -> object:
    data, start = buffer(draw), place(draw)
    return outcome(lambda: codec.kernels.parse_frame(data, start))


def take_frame(codec: ModuleType, draw: Draw) -> object:
    start, limit, masked, data = place(draw), draw.one_of(LIMITS), draw.flag(), buffer(draw)
    return outcome(lambda: codec.kernels.take_frame(data, start, limit, masked))


def take_messages(codec: ModuleType, draw: Draw) -> object:
    start, limit, masked, data = place(draw), draw.one_of(LIMITS), draw.flag(), buffer(draw)
    messages: list[Any] = []
    end = outcome(lambda: codec.kernels.take_messages(data, start, messages, limit, masked))
    return end, repr(messages)


KERNELS = (take_messages, take_frame, parse_frame, encode_frame, mask, mask_into, accept_key)
