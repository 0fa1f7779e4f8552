"""The arguments of the targets, and the values that they draw from the fuzzer's bytes."""

from __future__ import annotations

from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

import atheris


class Codecs(NamedTuple):
    """The codec on either kernel."""

    compiled: ModuleType
    pure: ModuleType


BACKENDS = ["zlib"]
BACKENDS += [
    name
    for name, module in (("zlib-ng", "zlib_ng"), ("isal", "isal"))
    if find_spec(module) is not None
]


class Draw:
    """Values from the fuzzer's bytes: numbers from the end, text and bytes from the beginning.

    Without bytes, a number is 0, and a choice is the first of a list.
    """

    def __init__(self, data: bytes) -> None:
        self._data = atheris.FuzzedDataProvider(data)

    def number(self, last: int, first: int = 0) -> int:
        """Return an integer, both bounds included."""
        number: int = self._data.ConsumeIntInRange(first, last)
        return number

    def flag(self) -> bool:
        """Return True or False."""
        return self.number(1) == 1

    def one_of(self, items: Any) -> Any:
        """Return one of these items."""
        return items[self.number(len(items) - 1)]

    def data(self, size: int | None = None) -> bytes:
        """Return at most ``size`` bytes; None for all."""
        remaining = self._data.remaining_bytes()
        taken: bytes = self._data.ConsumeBytes(remaining if size is None else size)
        return taken

    def text(self, size: int) -> str:
        """Return at most ``size`` characters, none of them a surrogate."""
        text: str = self._data.ConsumeUnicodeNoSurrogates(size)
        return text

    def chunks(self, data: bytes) -> list[bytes]:
        """Return the same bytes in pieces."""
        if len(data) < 300 and self.number(9) == 9:
            cuts = list(range(1, len(data)))
        else:
            cuts = sorted(self.number(len(data)) for _ in range(self.number(6)))
        return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def settings(self) -> dict[str, Any]:
        """Return arguments of a PerMessageDeflate."""
        backend = self.one_of(BACKENDS)
        first = 9 if backend == "isal" else 8
        return {
            "backend": backend,
            "server_no_context_takeover": self.flag(),
            "client_no_context_takeover": self.flag(),
            "server_max_window_bits": 15 - self.number(15 - first),
            "client_max_window_bits": 15 - self.number(15 - first),
            "level": self.one_of((None, 0, 1, 2, 3) if backend == "isal" else (None, *range(10))),
            "memory_level": self.number(9, 1),
            "min_size": self.one_of((64, 0, 1000)),
        }
