"""One request over a new connection, and its response as it arrives.

h11 parses the framing of the response (RFC 9112 section 6). It limits everything that must be
buffered: the head, the extensions of a chunk, the trailer.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from ssl import SSLContext

import h11

from ..errors import HandshakeError
from ..fields import Fields
from ..headers import FORBIDDEN_IN_A_VALUE
from .content import Decoder, decoder_for, read_decoded
from .deadline import set_deadline, set_timeout
from .dial import SocketSlot, dial
from .location import Location
from .refusal import end_of_wait, first_bytes

READ_SIZE = 1 << 16
MAX_HEAD_SIZE = 1 << 14
MAX_QUOTE = 200
MAX_INTERIM = 16  # the maximum number of interim responses (RFC 9110 section 15.2)


class Response:
    """A response whose head has arrived.

    Attributes:
        status: the status code.
        headers: (name, value) pairs.
        fields: the same headers, by name.

    Raises:
        ConnectionError: a header contains a control character.
    """

    def __init__(self, response: h11.Response, messages: _ResponseReader, deadline: float) -> None:
        self.status: int = response.status_code
        self.headers: tuple[tuple[str, str], ...] = tuple(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in response.headers.raw_items()
        )
        for name, value in self.headers:
            if FORBIDDEN_IN_A_VALUE.search(value):  # h11 accepts control characters
                raise ConnectionError(
                    f"the response is malformed: a header contains a control character: {name}"
                )
        self.fields: Fields = Fields(self.headers, 502)
        self._reader = messages
        self._deadline = deadline
        self._decoder: Decoder | None = None

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case; "" if the header is missing."""
        value = self.fields.single("content-type") or ""
        return value.partition(";")[0].strip(" \t").lower()

    def values(self, name: str) -> list[str]:
        """Return the values of all headers with a name in lower case."""
        return [value for header, value in self.headers if header.lower() == name]

    def decode(self) -> None:
        """Make :meth:`read` decode the content coding (RFC 9110 section 8.4).

        Raises:
            HandshakeError: the coding is unknown; status 502.
        """
        self._decoder = decoder_for(self.fields.items("content-encoding"))

    def read(self) -> bytes:
        """Wait for the next bytes of the body, 64 KiB at most; b"" at its end.

        Raises:
            OSError: the connection was lost, the body is malformed or truncated, or nothing arrived
                within the timeout of the socket.
        """
        if self._decoder is None:
            return self._reader.next_data()
        return read_decoded(self._decoder, self._reader.next_data)

    def refusal(self) -> bytes:
        """Return the first bytes of the body, 16 KiB at most, decoded.

        The wait ends after two seconds, or at the deadline of the request. Nothing else can be read
        afterwards.
        """
        self._reader.deadline = end_of_wait(self._deadline)
        with suppress(HandshakeError):
            self.decode()
        return first_bytes(self.read)

    def error(self) -> HandshakeError:
        """Return the error for a response that refuses the request; as :meth:`refusal`."""
        return HandshakeError.of_response(self.status, self.headers, self.refusal())


def send(
    location: Location,
    method: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    deadline: float,
    ssl: SSLContext | None,
    timeout: float,
    slot: SocketSlot,
) -> Response:
    """Send a request, and wait for the head of the response.

    Args:
        location: the location of the resource.
        method: the method of the request.
        headers: the headers of the request, checked by :func:`wsframe.headers.check_field`.
        body: the body of the request; ``headers`` contain the length of a body.
        deadline: a time of the monotonic clock, for the head of the response.
        ssl: as for :func:`dial`.
        timeout: the longest silence of the body, in seconds; infinity is no limit.
        slot: as for :func:`dial`.

    Raises:
        OSError: connecting failed, or the response is malformed.
        HandshakeError: the framing of the response is ambiguous or unknown; status 502.
    """
    request = h11.Request(
        method=method,
        target=location.target,
        headers=[(name.encode(), value.strip(" \t").encode("latin-1")) for name, value in headers],
    )
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_SIZE)
    data = connection.send(request)
    if body:
        data += connection.send(h11.Data(body))
    connection.send(h11.EndOfMessage())
    sock = dial(location, deadline, ssl, slot)
    set_deadline(sock, deadline)
    sock.sendall(data)
    messages = _ResponseReader(connection, sock, deadline)
    answer = Response(messages.next_response(), messages, deadline)
    messages.deadline = None
    set_timeout(sock, timeout)
    return answer


class _ResponseReader:
    """The reader of a response, which passes data from a socket to h11.

    Attributes:
        deadline: a time of the monotonic clock; None to use the timeout of the socket.
    """

    def __init__(self, connection: h11.Connection, sock: socket.socket, deadline: float) -> None:
        self.deadline: float | None = deadline
        self._connection = connection
        self._sock = sock

    def next_response(self) -> h11.Response:
        """Wait for the head of the final response.

        Raises:
            OSError, HandshakeError: as :func:`send`.
        """
        for _ in range(MAX_INTERIM + 1):
            event = self._next_event()
            if isinstance(event, h11.Response):
                _check_framing(event)
                return event
        raise ConnectionError(f"the server sent more than {MAX_INTERIM} interim responses (1xx)")

    def next_data(self) -> bytes:
        """Wait for the next bytes of the body; b"" at its end."""
        event = self._next_event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    def _next_event(self) -> object:
        try:
            while (event := self._connection.next_event()) is h11.NEED_DATA:
                if self.deadline is not None:
                    set_deadline(self._sock, self.deadline)
                self._connection.receive_data(self._sock.recv(READ_SIZE))
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 501:
                raise HandshakeError(
                    502,
                    'unsupported Transfer-Encoding of the response: only "chunked" is supported',
                ) from error
            # The error contains data of the server, which may be long.
            reason = str(error)[:MAX_QUOTE]
            raise ConnectionError(f"the response is malformed or truncated: {reason}") from error
        return event


def _check_framing(response: h11.Response) -> None:
    """Reject a response with an ambiguous length (RFC 9112 sections 6.1 and 6.3).

    Raises:
        ConnectionError: the version of the response is not HTTP/1.x.
        HandshakeError: the framing is ambiguous; status 502.
    """
    if not response.http_version.startswith(b"1."):
        raise ConnectionError(
            f"the response has an unsupported version: HTTP/{response.http_version.decode()}"
        )
    names = {name for name, _ in response.headers}
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            raise HandshakeError(502, "the response has both Transfer-Encoding and Content-Length")
        if response.http_version != b"1.1":
            raise HandshakeError(502, "an HTTP/1.0 response must not have a Transfer-Encoding")
