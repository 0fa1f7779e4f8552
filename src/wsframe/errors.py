"""The exceptions of wsframe: errors of the caller, and errors of the peer."""

from __future__ import annotations

from .arguments import check_integer
from .headers import Headers, encode_final, pairs
from .shown import names_of, short, show

__all__ = ["ConnectionClosed", "HandshakeError", "ProtocolError", "StateError", "WSFrameError"]

DESCRIBES_BODY = frozenset(
    ("content-encoding", "content-length", "content-type", "transfer-encoding")
)


class WSFrameError(Exception):
    """The base class of all errors that wsframe defines.

    >>> connection = Connection(Role.SERVER)
    >>> frame = connection.close()
    >>> try:
    ...     connection.encode("hello")
    ... except WSFrameError as error:
    ...     type(error).__name__
    'StateError'
    """


class StateError(WSFrameError):
    """The error for a call that the state forbids, such as sending after the close frame.

    >>> connection = Connection(Role.SERVER)
    >>> frame = connection.close()
    >>> connection.encode("hello")
    Traceback (most recent call last):
    wsframe.errors.StateError: ...
    """


class ConnectionClosed(WSFrameError):  # noqa: N818 - an end is not always an error
    """The error for a closed connection: no message can be received or sent.

    >>> try:
    ...     raise ConnectionClosed(1001, "restart")
    ... except ConnectionClosed as end:
    ...     print(end.code, end.reason)
    1001 restart

    Attributes:
        code: the close code; 1005 if the close frame had none, 1006 if none was received.
        reason: the close reason, or a description of what happened.
    """

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{int(self.code)} {self.reason}".rstrip()


class ProtocolError(WSFrameError):
    r"""The error for the peer's violation of the protocol.

    >>> error = ProtocolError(1002, "a fragment is missing")
    >>> Connection(Role.SERVER).close(error.code, error.reason)[2:4]
    b'\x03\xea'

    Attributes:
        code: the close code to send (RFC 6455 section 7.4.1).
        reason: the violated rule, short enough for a close frame.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} ({int(self.code)})"


class HandshakeError(WSFrameError):
    r"""The error for a rejected opening handshake.

    >>> HandshakeError(503, "too many clients", [("Retry-After", "10")]).encode()
    b'HTTP/1.1 503 Service Unavailable\r\n...'

    Attributes:
        status: for a server, the HTTP status to respond with; for a client, the status of the
            response, or 502 if the response violates the protocol.
        reason: a description that is suitable as the body of the response.
        headers: for a server, additional headers of the response; for a client, the headers of the
            response; as (name, value) pairs of ``str``.
        body: for a client, the first bytes of the body of the response, 16 KiB at most; b"" for an
            empty body, or if no byte of it arrived in time.
        answered: for a client, True if the server has refused the request with ``status``; False
            for any other error, such as a response that violates the protocol.

    Raises:
        TypeError: the headers have another type.
    """

    answered: bool = False

    def __init__(self, status: int, reason: str, headers: Headers = (), body: bytes = b"") -> None:
        fields: tuple[tuple[str, str], ...] = tuple(pairs(headers))
        super().__init__(status, reason, fields, body)
        self.status = status
        self.reason = reason
        self.headers = fields
        self.body = body

    @classmethod
    def of_response(cls, status: int, headers: Headers = (), body: bytes = b"") -> HandshakeError:
        """As a client, return the error for a response that refuses the request.

        Args:
            status: the status of the response.
            headers: its headers.
            body: the first bytes of its body.

        Raises:
            TypeError: the headers have another type.
        """
        error = cls(status, f"the server answered {status}", headers, body)
        error.answered = True
        return error

    def __str__(self) -> str:
        return f"{self.reason} ({self.status})"

    def __repr__(self) -> str:
        return show(self, str(self.status), short(self.reason), headers=names_of(self.headers))

    def encode(self, headers: Headers = (), *, body: bool = True) -> bytes:
        """As a server, return the complete response in wire format; then close the connection.

        Args:
            headers: further headers, such as ``Date``, which this package has no clock for.
            body: False for the answer to a HEAD request, which must not have a body.

        Raises:
            ValueError: the status is unknown, or its responses have no body; or a header is not
                valid, or describes the body, which this method does itself.
            TypeError: the status is not an integer, or the headers have another type.
        """
        check_integer("status", self.status, 200, 599)
        if self.status in (204, 205, 304):
            raise ValueError(f"status must allow a body: {self.status}")
        fields = [*self.headers, *pairs(headers)]
        for name, _ in fields:
            if name.lower() in DESCRIBES_BODY:
                raise ValueError(f"header {name} is reserved for the body, which is the reason")
        return encode_final(self.status, fields, f"{self.reason}\n".encode(), with_body=body)
