"""An nginx as a proxy of a server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from .tools import missing_tool

TIMEOUT = 10.0

CONFIGURATION = """
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream backend {{ server 127.0.0.1:{port}; }}
    server {{
        listen unix:{directory}/socket;
        location / {{
            {location}
        }}
    }}
}}
"""


class Nginx:
    """A context manager: an nginx that listens on a Unix socket, so that no port is in use.

    Args:
        port: the port of the server on 127.0.0.1, which is also the upstream "backend".
        location: the directives of its only location.
    """

    def __init__(self, port: int, location: str) -> None:
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            missing_tool("nginx")
        self._program = program
        self._port = port
        self._location = location

    def __enter__(self) -> Nginx:
        # Not pytest's directory: the path of a unix socket must be short.
        self._directory = Path(tempfile.mkdtemp(prefix="wsframe-nginx-"))
        configuration = self._directory / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                directory=self._directory, port=self._port, location=self._location
            ),
            encoding="utf-8",
        )
        self._process = subprocess.Popen(
            [self._program, "-p", str(self._directory), "-c", str(configuration)],
            stderr=subprocess.PIPE,
        )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=TIMEOUT)
        shutil.rmtree(self._directory)

    def ask(self, request: bytes) -> bytes:
        """Send a request, and return the head of the response."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(TIMEOUT)
            sock.connect(str(self._directory / "socket"))
            sock.sendall(request)
            answer = b""
            while b"\r\n\r\n" not in answer:
                data = sock.recv(1 << 16)
                assert data, f"the answer ends early: {answer!r}"
                answer += data
            return answer

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + TIMEOUT
        while True:
            assert self._process.poll() is None, self._process.stderr.read().decode()  # type: ignore[union-attr]
            assert time.monotonic() < deadline, "nginx does not listen"
            with suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(self._directory / "socket"))
                return
            time.sleep(0.01)
