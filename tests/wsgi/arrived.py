"""A request that a WSGI server has received: its connection and its environment."""

from __future__ import annotations

import io
import socket
from typing import Any

from tests.support.clients import END_OF_HEAD, KEY
from tests.support.waiting import TIMEOUT
from wsframe.wsgi import Reply

UPGRADE = {
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_KEY": KEY,
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
}


class Arrived:
    """A request on a real connection, as Werkzeug passes it on.

    Args:
        read_ahead: the bytes that the server has read after the request.
        **changes: changes of the environment.

    Attributes:
        client: the client's socket.
        sock: the server's socket.
        environ: the environment.
        started: the status and the headers of each call of ``start_response``.
    """

    def __init__(self, read_ahead: bytes = b"", /, **changes: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.client = socket.create_connection(listener.getsockname())
            self.client.settimeout(TIMEOUT)
            self.sock, (host, port) = listener.accept()
        reader = self.sock.makefile("rb")
        if read_ahead:
            self.client.sendall(b"." + read_ahead)
            assert reader.read(1) == b"."
        self.environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/here",
            "QUERY_STRING": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_SOFTWARE": "Werkzeug",
            "REMOTE_ADDR": host,
            "REMOTE_PORT": port,
            "HTTP_HOST": "localhost",
            "wsgi.url_scheme": "http",
            "wsgi.input": reader,
            "werkzeug.socket": self.sock,
        }
        self.environ.update(changes)
        self.started: list[tuple[str, list[tuple[str, str]]]] = []
        self._reader = reader

    def __enter__(self) -> Arrived:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._reader.close()
        self.sock.close()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        """Note the status and the headers, as a server that has sent nothing yet."""
        assert exc_info is not None or not self.started
        self.started.append((status, headers))

    def call(self, application: Any) -> Reply:
        """Call the application, as a server does; return the reply, which the server iterates."""
        reply: Reply = application(self.environ, self.start_response)
        return reply

    def serve(self, application: Any) -> bytes:
        """Serve the request, as a server does; return the body."""
        reply = self.call(application)
        try:
            return b"".join(reply)
        finally:
            reply.close()

    def receive_until(self, end: bytes = END_OF_HEAD) -> bytes:
        """Return what the client receives, up to and including these bytes."""
        data = b""
        while not data.endswith(end):
            more = self.client.recv(1)
            assert more, data
            data += more
        return data

    @property
    def status(self) -> int:
        """The status of the last call of ``start_response``."""
        return int(self.started[-1][0].split()[0])

    def header(self, name: str) -> str | None:
        """Return a header of the last call of ``start_response``."""
        return dict(self.started[-1][1]).get(name)


def without_socket(body: bytes = b"", /, **changes: Any) -> Arrived:
    """Return a request to a server that has no socket for it."""
    arrived = Arrived(**changes)
    del arrived.environ["werkzeug.socket"]
    arrived.environ["wsgi.input"] = io.BytesIO(body)
    arrived.environ["SERVER_SOFTWARE"] = "granian"
    return arrived
