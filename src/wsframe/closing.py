"""Context managers that close themselves."""

from __future__ import annotations

from typing import Self

__all__ = ["Closing"]


class Closing:
    """A mixin for objects with a ``close`` method: ``with`` returns the object and closes it."""

    __slots__ = ()

    def close(self) -> None:
        """Any thread: close the object; closing twice does nothing."""

    def __enter__(self) -> Self:
        """Any thread: return the object itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Any thread: close the object."""
        self.close()
