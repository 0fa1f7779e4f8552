"""An incremental parser of the response to an opening handshake (RFC 9112), without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from .errors import HandshakeError
from .fields import decode_response
from .heads import HeadDecoder
from .shown import names_of, show

__all__ = ["ResponseDecoder", "ResponseHead"]

END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True, repr=False)
class ResponseHead:
    r"""The head of a response, as :class:`ResponseDecoder` returns it.

    >>> ResponseDecoder().receive(b"HTTP/1.1 404 Not Found\r\n\r\n").status
    404

    Attributes:
        status: the status, for :meth:`wsframe.UpgradeRequest.confirm`.
        headers: the headers, as (name, value) pairs.
    """

    status: int
    headers: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return show(self, str(self.status), headers=names_of(self.headers))


class ResponseDecoder(HeadDecoder[ResponseHead]):
    r"""Incremental decoder of the head of the final response, for any split of its bytes.

    Interim responses, such as 100 and 103, are skipped (RFC 9110 section 15.2). A response that is
    malformed or exceeds the limit is refused with status 502. The time is linear in the received
    bytes, and the memory is limited to the head and one call's data. Only one thread at a time may
    use it.

    >>> decoder = ResponseDecoder()
    >>> decoder.receive(b"HTTP/1.1 200 OK\r\n") is None
    True
    >>> decoder.receive(b"\r\nbody").status, decoder.rest
    (200, b'body')

    Args:
        max_head_size: the maximum size of the head in bytes, with the interim responses before it.

    Attributes:
        rest: the bytes received after the head: the first frames, or a part of the body if the
            status is not 101.

    Raises:
        ValueError: the limit is less than 1.
    """

    def __init__(self, *, max_head_size: int = 16384) -> None:
        super().__init__(max_head_size)

    def _read(self, new: int) -> ResponseHead | None:
        """Read all complete heads; return the first that is not of an interim response."""
        buffer, begin, searched = self._buffer, 0, max(0, new - len(END_OF_HEAD) + 1)
        while True:
            found = buffer.find(END_OF_HEAD, searched)
            end = len(buffer) if found < 0 else found + len(END_OF_HEAD)
            if end - begin > self._room:
                reason = f"the response head exceeds the limit of {self._max_head_size} bytes"
                raise HandshakeError(502, reason)
            if found < 0:
                del buffer[:begin]
                return None
            status, headers = decode_response(bytes(buffer[begin:end]))
            if status >= 200 or status == HTTPStatus.SWITCHING_PROTOCOLS:
                del buffer[:end]
                return ResponseHead(status, tuple(headers))
            self._room -= end - begin
            begin = searched = end
