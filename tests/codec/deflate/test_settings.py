"""The settings of permessage-deflate."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest

from tests.codec.deflate.helpers import BACKENDS, compressing
from tests.support.ends import (
    CLIENT,
    SERVER,
)
from tests.support.tools import load_codec
from tests.support.vectors import (
    payload_of,
)

pytestmark = pytest.mark.one_kernel


def test_settings_are_values(codec: ModuleType) -> None:
    one, same = codec.PerMessageDeflate(level=3), codec.PerMessageDeflate(level=3)
    assert (one == same, hash(one) == hash(same)) == (True, True)
    assert one != codec.PerMessageDeflate()
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.level = 4
    with pytest.raises(TypeError, match="positional argument"):
        codec.PerMessageDeflate(True)


OUT_OF_RANGE: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"{name}-{bits}": ({name: bits}, f"{name} is out of range for zlib: {bits}")
        for name in ("server_max_window_bits", "client_max_window_bits")
        for bits in (-15, 0, 7, 16)
    },
    **{
        f"isal-{name}-8": (
            {name: 8, "backend": "isal"},
            f"{name} is out of range for isal: 8",
        )
        for name in ("server_max_window_bits", "client_max_window_bits")
    },
    **{
        f"{backend}-level-{level}": (
            {"level": level, "backend": backend},
            f"level {level} or memory_level 8 is out of range for {backend}: ",
        )
        for backend, levels in (
            ("zlib", (-2, 10, 1 << 70)),
            ("zlib-ng", (-2, 10, 1 << 70)),
            ("isal", (-1, 4, 1 << 70)),
        )
        for level in levels
    },
    **{
        f"{backend}-memory-level-{level}": (
            {"memory_level": level, "backend": backend},
            f"level None or memory_level {level} is out of range for {backend}: ",
        )
        for backend in BACKENDS
        for level in (0, 10, 1 << 70)
    },
    "min-size": ({"min_size": -1}, "min_size must be at least 0, not -1"),
    "backend": (
        {"backend": "brotli"},
        "backend must be one of zlib, zlib-ng, isal, not 'brotli'",
    ),
}


@pytest.mark.parametrize(("settings", "text"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE.keys())
def test_settings_out_of_range_are_an_error(
    codec: ModuleType, settings: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        codec.PerMessageDeflate(**settings)


@pytest.mark.parametrize("memory_level", range(1, 10))
@pytest.mark.parametrize(
    ("backend", "levels"),
    [("zlib", range(10)), ("zlib-ng", range(10)), ("isal", range(4))],
    ids=BACKENDS,
)
def test_every_level_and_memory_level_is_supported(
    codec: ModuleType, backend: str, levels: Iterable[int], memory_level: int
) -> None:
    messages: list[Any] = ["Hello, " * 40, payload_of(5000), "", b"x" * 70_000, os.urandom(300)]
    for level in (*levels, None):
        sender = compressing(codec, SERVER, backend=backend, level=level, memory_level=memory_level)
        receiver = compressing(codec, CLIENT)
        for message in messages:
            assert receiver.receive(sender.encode(message, compress=True)) == [message]


@pytest.mark.parametrize(
    ("backend", "module"), [("zlib-ng", "zlib_ng.zlib_ng"), ("isal", "isal.isal_zlib")]
)
def test_a_backend_that_is_not_installed_is_named(
    codec: ModuleType, monkeypatch: pytest.MonkeyPatch, backend: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    codec = load_codec(pure=not codec.ACCELERATED)  # not cached yet
    text = rf"^{backend} is not installed: pip install 'wsframe\[{backend}\]'$"
    for _ in range(2):
        with pytest.raises(ImportError, match=text):
            codec.PerMessageDeflate(backend=backend)
    assert codec.PerMessageDeflate().backend == "zlib"
