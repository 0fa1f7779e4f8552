"""nginx, Caddy and HAProxy as proxies that listen on a port of this machine."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from wsframe.testing import ReservedPort

from .tools import missing_tool
from .waiting import TIMEOUT

NGINX = """
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
    {http}
}}
"""

NGINX_SERVER = """
    server {{
        listen 127.0.0.1:{port}{tls};
        {server}
        location / {{
            {location}
        }}
    }}
"""

CADDY = """
{{
    admin off
    auto_https off
    storage file_system {directory}/storage
    grace_period 100ms
    {options}
}}
{scheme}://localhost:{port} {{
    bind 127.0.0.1
    {site}
}}
"""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def nginx() -> str:
    """Return the path of nginx; skip the test if it is missing."""
    return _program("nginx") or missing_tool("nginx")


def caddy() -> str | None:
    """Return the path of Caddy; None if it is not installed."""
    return _program("caddy")


def caddy_version() -> tuple[int, ...]:
    """Return the version of Caddy, such as ``(2, 6, 2)``; empty if it is not installed."""
    program = caddy()
    if program is None:
        return ()
    answer = subprocess.run([program, "version"], capture_output=True, text=True, check=True)
    return tuple(map(int, re.findall(r"\d+", answer.stdout.partition(" ")[0])))


class Proxy:
    """A context manager: a proxy in a process of its own.

    Args:
        command: the command; ``{directory}`` is replaced by the directory of its files.
        configuration: the content of the file "configuration" in the directory; ``{port}`` and
            ``{directory}`` are replaced.

    Attributes:
        port: the port on 127.0.0.1.
    """

    def __init__(self, command: list[str], configuration: str) -> None:
        self._command = command
        self._configuration = configuration

    def __enter__(self) -> Proxy:
        self._directory = Path(tempfile.mkdtemp(prefix="wsframe-proxy-"))
        self._reserved = ReservedPort()
        self.port = self._reserved.number
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)
        self._reserved.release()
        shutil.rmtree(self._directory)

    def _start(self) -> None:
        """Start the process, and wait until it listens."""
        configuration = self._directory / "configuration"
        text = self._configuration.format(port=self.port, directory=self._directory)
        configuration.write_text(text)
        with (self._directory / "errors").open("w") as errors:
            self._process = subprocess.Popen(
                [part.format(directory=self._directory) for part in self._command],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, "HOME": str(self._directory)},
            )
        deadline = time.monotonic() + TIMEOUT
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.01)
        reason = (self._directory / "errors").read_text()
        raise AssertionError(f"{self._command[0]} does not listen: {reason}")


def nginx_proxy(
    location: str, server: str = "", *, tls: bool = False, backend: int | None = None
) -> Proxy:
    """Return an nginx with these directives of its only location and its only server.

    Args:
        location: the directives of the location.
        server: the directives of the server.
        tls: True if the server uses TLS.
        backend: the port on 127.0.0.1 of the upstream "backend", if the location uses it.
    """
    upstream = "" if backend is None else f"upstream backend {{ server 127.0.0.1:{backend}; }}"
    return nginx_with(upstream + nginx_server(location, server, tls=tls))


def nginx_server(location: str, server: str = "", *, tls: bool = False) -> str:
    """Return nginx's only server, with these directives, and with those of its only location."""
    return NGINX_SERVER.format(
        location=location, server=server, tls=" ssl" if tls else "", port="{port}"
    )


def nginx_with(http: str) -> Proxy:
    """Return an nginx with these directives of the context "http", which must use ``{port}``."""
    configuration = NGINX.format(http=http, directory="{directory}")
    command = [nginx(), "-p", "{directory}", "-c", "{directory}/configuration"]
    return Proxy(command, _escaped(configuration))


def caddy_proxy(program: str, site: str) -> Proxy:
    """Return a Caddy with these directives of its only site."""
    return caddy_with(program, caddyfile(site))


def caddyfile(site: str, options: str = "", *, tls: bool = False) -> str:
    """Return a Caddyfile with these directives of its only site, and these global options."""
    scheme = "https" if tls else "http"
    return CADDY.format(
        site=site, options=options, scheme=scheme, port="{port}", directory="{directory}"
    )


def caddy_with(program: str, configuration: str) -> Proxy:
    """Return a Caddy with this Caddyfile, which must use ``{port}``."""
    file = "{directory}/configuration"
    command = [program, "run", "--config", file, "--adapter", "caddyfile"]
    return Proxy(command, _escaped(configuration))


def haproxy_with(configuration: str) -> Proxy:
    """Return a HAProxy with this configuration, which must use ``{port}``."""
    program = _program("haproxy") or missing_tool("haproxy")
    command = [program, "-db", "-f", "{directory}/configuration"]
    return Proxy(command, _escaped(configuration))


def _escaped(configuration: str) -> str:
    """Double the braces of a configuration, except those of the names that are replaced later."""
    doubled = configuration.replace("{", "{{").replace("}", "}}")
    return doubled.replace("{{port}}", "{port}").replace("{{directory}}", "{directory}")
