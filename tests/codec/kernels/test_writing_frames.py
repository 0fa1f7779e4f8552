"""Encoding frames (RFC 6455 section 5.2)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from types import ModuleType
from typing import Any

import pytest

from tests.codec.kernels.helpers import FIN_BINARY, FIN_TEXT, KEY, StrSubclass, sizes
from tests.support.tools import load_codec
from tests.support.vectors import (
    RFC_FRAMES,
    SHORT_SIZES,
    Frame,
    by_hand,
    payload_of,
)


@pytest.mark.parametrize("frame", RFC_FRAMES.values(), ids=RFC_FRAMES)
def test_encode_frame_encodes_the_frames_of_the_rfc(codec: ModuleType, frame: Frame) -> None:
    wire = codec.encode_frame(
        frame.opcode, frame.payload, fin=frame.fin, masking_key=frame.masking_key
    )
    assert type(wire) is bytes
    assert wire == frame.wire


@pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
def test_encode_frame_at_every_short_size(codec: ModuleType, key: bytes | None) -> None:
    for size in SHORT_SIZES:
        payload = payload_of(size)
        wire = codec.encode_frame(2, payload, masking_key=key)
        assert wire == by_hand(FIN_BINARY, payload, key), size


@pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
@sizes
def test_encode_frame_at_the_edges(codec: ModuleType, size: int, key: bytes | None) -> None:
    payload = payload_of(size)
    assert codec.encode_frame(2, payload, masking_key=key) == by_hand(FIN_BINARY, payload, key)


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (65535, "827effff"),
        (65536, "827f0000000000010000"),
    ],
)
def test_encode_frame_uses_the_shortest_form_of_the_length(
    codec: ModuleType, size: int, head: str
) -> None:
    assert codec.encode_frame(2, bytes(size)) == bytes.fromhex(head) + bytes(size)


def test_encode_frame_writes_every_first_byte(codec: ModuleType) -> None:
    for opcode in range(16):
        for rsv in range(8):
            for fin in (True, False):
                if opcode >= 8 and not fin:
                    continue
                first = fin << 7 | rsv << 4 | opcode
                assert codec.encode_frame(opcode, b"x", fin=fin, rsv=rsv) == bytes((first, 1, 120))


def test_encode_frame_accepts_any_truth_value_for_fin(codec: ModuleType) -> None:
    no: Any
    for no in (0, "", None):
        assert codec.encode_frame(1, fin=no) == b"\x01\x00"
    assert codec.encode_frame(1, fin=2) == b"\x81\x00"


def test_encode_frame_accepts_an_opcode_by_name(codec: ModuleType) -> None:
    assert codec.encode_frame(codec.Opcode.PING, b"x") == b"\x89\x01x"


TEXTS = {
    "empty": "",
    "ascii": "Hello",
    "latin-1": "café",
    "greek": "κόσμε",
    "astral": "a😀b",
    "NUL": "a\0b",
    "long-ascii": "x" * 70_000,
    "long-latin-1": "é" * 70_000,
    "subclass": StrSubclass("Hello"),
    "subclass-not-ascii": StrSubclass("café"),
}


@pytest.mark.parametrize("key", [None, KEY], ids=["unmasked", "masked"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_encode_frame_writes_text_as_utf_8(codec: ModuleType, text: str, key: bytes | None) -> None:
    assert codec.encode_frame(1, text, masking_key=key) == by_hand(FIN_TEXT, text.encode(), key)


def test_encode_frame_counts_bytes_and_not_characters(codec: ModuleType) -> None:
    assert codec.encode_frame(1, "é" * 63)[:4] == b"\x81\x7e\x00\x7e"


def test_control_frames_carry_125_bytes(codec: ModuleType) -> None:
    for opcode in range(8, 16):
        assert codec.encode_frame(opcode, bytes(125)) == bytes((0x80 | opcode, 125)) + bytes(125)


# Masking keys (RFC 6455 section 5.3: unpredictable, a new one for every frame)


def new_key(codec: ModuleType) -> bytes:
    wire: bytes = codec.encode_frame(1, b"", masking_key=True)
    assert wire[:2] == b"\x81\x80"
    assert len(wire) == 6
    return wire[2:]


def test_a_random_masking_key_masks_the_payload(codec: ModuleType) -> None:
    for size in (0, 1, 125, 126, 1024, 65536):
        payload = payload_of(size)
        wire = codec.encode_frame(2, payload, masking_key=True)
        head = {0: 2, 1: 2, 125: 2, 65536: 10}.get(size, 4)
        assert wire == by_hand(FIN_BINARY, payload, wire[head : head + 4])


def test_random_masking_keys_differ(codec: ModuleType) -> None:
    keys = [new_key(codec) for _ in range(10_000)]
    # For 10,000 keys out of 2**32, the probability of 5 or more repetitions is 1 in 10**12.
    assert len(set(keys)) > 10_000 - 5
    for position in range(4):
        assert len({key[position] for key in keys}) == 256


def test_masking_keys_come_from_the_system(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return b"\xab" * size

    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", urandom)
        for _ in range(100_000):
            if asked:
                break
            new_key(codec)
        assert asked, "keys that no os.urandom gave"
        used = 1
        # Every key is used once: the keys need all bytes of the blocks.
        while len(asked) == 1:
            assert new_key(codec) == b"\xab" * 4
            used += 1
        assert used == asked[0] // 4 + 1
    for _ in range(asked[-1] // 4):
        new_key(codec)  # the keys of the second block, which no other test may use


def test_a_short_block_of_random_bytes_is_an_error(
    compiled: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The memory behind a short block is not random.
    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", lambda size: bytes(size - 1))
        with pytest.raises(RuntimeError, match=r"^os\.urandom returned 4095 bytes, not 4096$"):
            b"".join(new_key(compiled) for _ in range(4096 // 4 + 1))
    assert len(new_key(compiled)) == 4


def test_masking_keys_work_on_systems_without_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    assert len(new_key(load_codec(pure=True))) == 4


FORK = """
import os, wsframe
def keys(n):
    return b"".join(wsframe.encode_frame(1, b"", masking_key=True)[2:] for _ in range(n))
keys(10)  # so that there is a stock to inherit
read, write = os.pipe()
child = os.fork()
if not child:
    os.write(write, keys(500))
    os._exit(0)
theirs = os.read(read, 2000)
assert os.waitpid(child, 0)[1] == 0
ours = keys(500)
cut = lambda data: {data[i : i + 4] for i in range(0, len(data), 4)}
assert len(theirs) == len(ours) == 2000
print(wsframe.ACCELERATED, len(cut(ours) & cut(theirs)) <= 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_masking_keys_are_not_repeated_in_a_forked_child(codec: ModuleType) -> None:
    environment = {**os.environ, "WSFRAME_PURE": "0" if codec.ACCELERATED else "1"}
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == f"{codec.ACCELERATED} True\n", done.stderr


def test_masking_keys_are_not_repeated_between_threads(codec: ModuleType) -> None:
    count = 4
    stocks: list[list[bytes]] = [[] for _ in range(count)]
    start = threading.Barrier(count)

    def run(stock: list[bytes]) -> None:
        start.wait()
        stock.extend(new_key(codec) for _ in range(2500))

    threads = [threading.Thread(target=run, args=(stock,)) for stock in stocks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(stock) for stock in stocks] == [2500] * count
    assert len(set().union(*stocks)) > 10_000 - 5
