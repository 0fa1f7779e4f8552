"""The reader of the request that opens a connection."""

from __future__ import annotations

from collections.abc import Callable

try:
    import httptools
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        'the server needs httptools: pip install "wsframe[server]"', name="httptools"
    ) from _error

from wsframe import HandshakeError
from wsframe.fields import Fields
from wsframe.requests import REQUEST_LINE, split_target

from ..reports.refusals import MALFORMED
from ..sockets.peer import Peer
from ..sockets.proxy_header import begins_with_header
from ..sockets.session import Session
from .answers import refuse
from .head_limits import check_head_size, check_header_count, check_target, check_target_size
from .paths import normal_path
from .refusals import RefusalError
from .request import Request

MAX_LINE = 512  # the maximum number of bytes of a malformed head in the log
ADVICE = (
    "It begins with a PROXY header. If a proxy sends these, add its address to the setting "
    "proxy_protocol (--proxy-protocol)."
)
END_OF_HEAD = b"\r\n\r\n"


class RequestReader(Session):
    """Reads the head of one request.

    Args:
        peer: the connection.
        answer: a function that the owner calls once, with the request, its headers, and the bytes
            received after its head. A HandshakeError that the function raises is sent as the
            answer.
    """

    __slots__ = (
        "_answer",
        "_complete",
        "_head",
        "_headers",
        "_parser",
        "_peer",
        "_settings",
        "_target",
    )

    def __init__(self, peer: Peer, answer: Callable[[Request, Fields, memoryview], None]) -> None:
        self._peer = peer
        self._answer = answer
        self._settings = peer.clients.settings
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._head = bytearray()
        self._target = bytearray()
        self._headers: list[tuple[bytes, bytes]] = []
        self._complete = False

    def data_received(self, data: memoryview) -> None:
        """Loop owner: pass data to the parser up to the end of the head, and nothing after it."""
        parser = self._parser
        if parser is None:
            return  # a connection has one request, which is being answered
        begin = len(self._head)
        self._head += data
        end = self._head.find(END_OF_HEAD, max(0, begin - 3))
        if end >= 0:
            del self._head[end + len(END_OF_HEAD) :]
        head = data[: len(self._head) - begin]
        request: Request | None = None
        try:
            _feed(parser, head)
            self._check_limits()
            if self._complete:
                headers = [
                    # Whitespace around a value is not part of it (RFC 9110 section 5.5).
                    (name.decode("latin-1"), value.decode("latin-1").strip(" \t"))
                    for name, value in self._headers
                ]
                request = self._build_request(parser, headers)
                self._release()
                self._answer(request, Fields(headers), data[len(head) :])
            elif end >= 0:
                raise HandshakeError(400, "the request is malformed")
        except HandshakeError as error:
            line = bytes(self._head[:MAX_LINE]).partition(b"\r\n")[0].decode("latin-1")
            if not begin and begins_with_header(bytes(data[:MAX_LINE])):
                error = RefusalError(400, error.reason, kind=MALFORMED, advice=ADVICE)
            self._release()
            with_body = parser.get_method() != b"HEAD"
            refuse(self._peer, error, request=request, with_body=with_body, line=line)

    def disconnected(self) -> None:
        """Loop owner: release the parser; the client has not sent a complete request."""
        self._release()

    def deadline_passed(self) -> None:
        """Loop owner: close the connection, because the head was not complete in time."""
        self._peer.abort()

    @property
    def awaiting_request(self) -> bool:
        """Loop owner: True until the head is complete."""
        return not self._complete

    def shut_down(self) -> None:
        """Loop owner: close the connection, because no complete request has been received."""
        self._peer.abort()

    def _release(self) -> None:
        """Release the parser and the head.

        The parser and this reader refer to each other. Without the release, both would keep the
        head until the garbage collector runs.
        """
        self._parser = None
        self._head = bytearray()
        self._target = bytearray()
        self._headers = []

    def _check_limits(self) -> None:
        """Check the limits of a head, complete or not; one read exceeds them by at most its size.

        Raises:
            RefusalError: a limit is exceeded.
        """
        settings = self._settings
        check_target_size(len(self._target), settings)
        check_header_count(len(self._headers), settings)
        check_head_size(len(self._head), settings)

    def _build_request(
        self, parser: httptools.HttpRequestParser, headers: list[tuple[str, str]]
    ) -> Request:
        # The parser is more tolerant. HTTP/0.9 is refused later, with a clear status.
        line = 2 if self._head.startswith(b"\r\n") else 0  # RFC 9112 section 2.2
        if not REQUEST_LINE.match(self._head, line):
            raise HandshakeError(400, "the request line is malformed")
        host, target = split_target(self._target.decode("latin-1"))
        path, _, query = target.partition("?")
        check_target(path, query)
        request = Request(
            method=parser.get_method().decode("latin-1"),
            target=target,
            fields=headers,
            http_version=parser.get_http_version(),
            address=self._peer.address,
            scheme=self._peer.scheme,
            host=host,
            client_certificate=self._peer.client_certificate(),
        )
        try:
            normal_path(request.raw_path)
        except ValueError as error:
            raise HandshakeError(400, str(error)) from None
        return request

    # The callbacks of the parser, called within _feed.

    def on_url(self, part: bytes) -> None:
        """Collect a part of the request target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect one header."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Record that the head is complete."""
        self._complete = True


def _feed(parser: httptools.HttpRequestParser, head: memoryview) -> None:
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        pass  # raised for an upgrade request; no data follows its head in this call
    except httptools.HttpParserCallbackError:
        raise  # an internal error
    except httptools.HttpParserError:
        raise HandshakeError(400, "the request is malformed") from None
