"""HeadDecoder: the head of one HTTP message, from its first byte, without I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from .arguments import check_integer
from .buffers import octets
from .errors import HandshakeError, StateError
from .shown import show

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["HeadDecoder"]

Head = TypeVar("Head")


class HeadDecoder(ABC, Generic[Head]):
    """Incremental decoder of a head, for any split of its bytes; subclasses define its form.

    Only one thread at a time may use it.

    Args:
        max_head_size: the maximum size of the head in bytes.

    Attributes:
        rest: the bytes received after the head; b"" until the head is complete.

    Raises:
        ValueError: the limit is less than 1.
    """

    def __init__(self, max_head_size: int) -> None:
        check_integer("max_head_size", max_head_size, 1)
        self.rest: bytes = b""
        self._max_head_size = max_head_size
        self._room = max_head_size  # the number of bytes that may still be received
        self._buffer = bytearray()  # the received bytes that were not parsed yet
        self._complete = False
        self._refusal: tuple[int, str] | None = None

    def receive(self, data: Buffer) -> Head | None:
        """Decode bytes from the other end; return the head once it is complete.

        Args:
            data: any C-contiguous bytes-like object; it may be reused after the call.

        Raises:
            HandshakeError: the head is malformed, exceeds a limit, or has an unsupported version.
                Further calls raise it again.
            StateError: the head is complete; further bytes belong to the connection.
        """
        with octets(data) as view:  # an error must not keep a reference to the caller's data
            if self._complete:
                raise StateError("the head is complete: pass these bytes to Connection.receive()")
            if self._refusal is not None:
                raise HandshakeError(*self._refusal)
            new = len(self._buffer)
            self._buffer += view
        try:
            head = self._read(new)
        except HandshakeError as error:
            self._refusal = error.status, error.reason
            self._buffer = bytearray()
            raise
        if head is not None:
            self._complete = True
            self.rest, self._buffer = bytes(self._buffer), bytearray()
        return head

    def __repr__(self) -> str:
        state = "refused" if self._refusal else "complete" if self._complete else "incomplete"
        return show(self, state)

    @abstractmethod
    def _read(self, new: int) -> Head | None:
        """Read and remove the beginning of the buffer; return the head if it is complete.

        Args:
            new: the position of the new data in the buffer.
        """
