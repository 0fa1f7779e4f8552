"""The opening handshake: from the head of a request to an ASGI scope, and the answers to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import unquote_to_bytes

from wsframe.fields import Fields
from wsframe.headers import check_field, encode_final, encode_head, pairs
from wsframe.requests import split_target

#: A header in ASGI: its name and its value, each in bytes.
Header: TypeAlias = "tuple[bytes, bytes]"

END_OF_HEAD = b"\r\n\r\n"
WITHOUT_BODY = (204, 304)  # RFC 9112 section 6.3
# Headers that an application cannot set. They control the connection and the framing of the body.
OWN_HEADERS = (b"connection", b"transfer-encoding")


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """An upgrade request, in the form in which uvicorn passes it to the protocol.

    Attributes:
        method: the method.
        target: the target, in origin form or absolute form.
        headers: the headers, with names in lower case.
    """

    method: str
    target: bytes
    headers: list[Header]

    @classmethod
    def parse(cls, head: bytes) -> UpgradeRequest:
        """Parse the lines of a head, which uvicorn has already checked and formatted."""
        first, *lines = head.split(b"\r\n")
        method, target, _ = first.split(b" ", 2)
        headers = []
        for line in lines:
            name, _, value = line.partition(b":")
            headers.append((name.lower(), value.strip(b" \t")))
        return cls(method.decode("latin-1"), target, headers)

    @property
    def fields(self) -> Fields:
        """The headers, for :func:`wsframe.accept`."""
        return Fields(self.headers)

    def path_and_query(self) -> tuple[bytes, bytes]:
        """Return the path and the query string, both as received.

        Raises:
            HandshakeError: 400, because the target is malformed.
        """
        _, target = split_target(self.target.decode("latin-1"))
        path, _, query = target.encode("latin-1").partition(b"?")
        return path, query

    def scope(self, root_path: str, asgi_version: str) -> dict[str, Any]:
        """Return the part of the ASGI scope that depends on the request.

        Args:
            root_path: the setting of uvicorn, a prefix of the path.
            asgi_version: the version of ASGI that the application uses.

        Raises:
            HandshakeError: 400, because the target is malformed.
        """
        path, query = self.path_and_query()
        return {
            "type": "websocket",
            "asgi": {"version": asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "root_path": root_path,
            "path": root_path + unquote_to_bytes(path).decode("utf-8", "replace"),
            "raw_path": root_path.encode() + path,
            "query_string": query,
            "headers": self.headers,
            "subprotocols": self.fields.items("sec-websocket-protocol"),
            "extensions": {"websocket.http.response": {}},
        }


def encode_answer(status: int, headers: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """Return the bytes of an HTTP response.

    Raises:
        ValueError: a header is invalid; see :func:`wsframe.headers.check_field`.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:  # an application may use a status that has no name in HTTPStatus
        phrase = ""
    return encode_head(f"HTTP/1.1 {status} {phrase}", headers) + body


def encode_refusal(
    status: int,
    default_headers: Iterable[Header],
    reason: str = "",
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """Return a complete response that refuses the request.

    Args:
        status: the status.
        default_headers: the headers that uvicorn adds to every answer.
        reason: the body; by default the name of the status.
        headers: further headers.
    """
    body = (reason or HTTPStatus(status).phrase).encode()
    return encode_final(status, [*pairs(default_headers), *headers], body)


class Denial:
    """A response that the application sends instead of a WebSocket (``websocket.http.response``).

    Args:
        message: the message ``websocket.http.response.start``.
        default_headers: the headers that uvicorn adds to every answer.

    Attributes:
        status: the status.

    Raises:
        ValueError: the status is out of range, or a header is invalid.
    """

    def __init__(self, message: Any, default_headers: Iterable[Header]) -> None:
        self.status: int = message["status"]
        if not 200 <= self.status <= 599:
            raise ValueError(
                f"invalid status {self.status!r} (the status in websocket.http.response.start "
                f"must be 200 to 599)"
            )
        given = ((bytes(name).lower(), value) for name, value in message.get("headers", ()))
        kept = (header for header in given if header[0] not in OWN_HEADERS)
        self._headers = pairs([*default_headers, *kept, (b"connection", b"close")])
        for name, value in self._headers:
            check_field(name, value)
        self._head_sent = False

    def encode(self, body: bytes, *, last: bool) -> bytes:
        """Return the next bytes of the response; the first bytes begin with its head.

        A response in several parts without a Content-Length ends with the connection (RFC 9112
        section 6.3).
        """
        if self._head_sent:
            return body
        self._head_sent = True
        headers = self._headers
        sized = self.status in WITHOUT_BODY or any(name == "content-length" for name, _ in headers)
        if last and not sized:
            headers.append(("content-length", str(len(body))))
        return encode_answer(self.status, headers, body)
