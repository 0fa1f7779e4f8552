"""Starting and stopping a server: its program, and nginx in front of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from time import monotonic, sleep

import trustme

from .kinds import Kind
from .launch import CERTIFICATES
from .state import State
from .wire import TIMEOUT, Address, Wire, request

ROOT = Path(__file__).parent.parent
PRINTED_PORT = re.compile(r"http://127\.0\.0\.1:([1-9][0-9]*)[^0-9]")

NGINX = """
daemon off;
user {user};
worker_processes 1;
pid {directory}/pid;
error_log stderr error;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/client_body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream backend {{
        server {backend};
        keepalive 4;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            {directive};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $http_connection;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            uwsgi_param REQUEST_METHOD $request_method;
            uwsgi_param REQUEST_URI $request_uri;
            uwsgi_param PATH_INFO $document_uri;
            uwsgi_param QUERY_STRING $query_string;
            uwsgi_param CONTENT_TYPE $content_type;
            uwsgi_param CONTENT_LENGTH $content_length;
            uwsgi_param SERVER_PROTOCOL $server_protocol;
            uwsgi_param REMOTE_ADDR $remote_addr;
            uwsgi_param REMOTE_PORT $remote_port;
            uwsgi_param SERVER_NAME $server_name;
            uwsgi_param SERVER_PORT $server_port;
        }}
    }}
}}
"""


class MissingError(Exception):
    """A program or package is not installed; the message is its name."""


class RemovedError(Exception):
    """The installed version of a server lacks this configuration."""


class StartError(Exception):
    """A server did not start; the message contains its output."""


def allow_many_files() -> None:
    """Raise the open-file limit of this process, and of the servers, to the hard limit."""
    import resource  # does not exist on Windows

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def find(program: str) -> str:
    """Return the path of a program.

    Raises:
        MissingError: it is not installed.
    """
    folders = (Path(sys.executable).parent, os.environ.get("PATH", ""), "/usr/sbin")
    found = shutil.which(program, path=os.pathsep.join(map(str, folders)))
    if found is None:
        raise MissingError(program)
    return found


def version_of(kind: Kind) -> str:
    """Return the version of a server.

    Raises:
        MissingError: it is not installed.
        RemovedError: its version lacks this configuration.
    """
    if kind.package == "wsgiref":
        return sys.version.partition(" ")[0]
    try:
        found = version(kind.package)
    except ModuleNotFoundError:
        raise MissingError(kind.package) from None
    if kind.removed_in and int(found.partition(".")[0]) >= kind.removed_in:
        raise RemovedError(f"{kind.package} {found} lacks this")
    return found


class Running:
    """A running server; a context manager that kills it.

    Attributes:
        kind: the server.
        address: the address for clients.
    """

    address: Address

    def __init__(self, kind: Kind) -> None:
        version_of(kind)
        self.kind = kind
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stack = ExitStack()
        # Not a test's directory, because the path of a unix socket must be short.
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="wsframe-"))
        self._directory = Path(directory)
        self._reloaded = self._directory / "reloaded.py"
        self._reloaded.touch()
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._stack.close()

    @property
    def has_ended(self) -> bool:
        """True if the program of the server has ended."""
        return self._processes[0].poll() is not None

    @property
    def output(self) -> str:
        """Everything that the server has printed so far."""
        return (self._directory / "output").read_text(encoding="utf-8", errors="replace")

    def connect(self) -> Wire:
        """Return a new connection."""
        return Wire(self.address)

    def state(self) -> State:
        """Return the resources of the process that serves the application."""
        with self.connect() as wire:
            wire.send(request("/state", [("Connection", "close")]))
            return State.decode(wire.expect_status(200).body)

    def touch(self) -> None:
        """Change a source file; the server is restarted if its reloader has seen it before."""
        later = self._reloaded.stat().st_mtime + 10
        os.utime(self._reloaded, (later, later))

    def hang_up(self) -> None:
        """Send SIGHUP, by which a server with worker processes replaces them."""
        self._processes[0].send_signal(signal.SIGHUP)

    def find_restarted(self) -> None:
        """Wait until the restarted server listens."""
        if self.kind.moves:
            self.address = Address(self._printed_port(2), self.address.tls)

    def terminate(self) -> None:
        """Send SIGTERM; to a reloader and its child, as terminals and systemd do."""
        server = self._processes[0]
        if self.kind.reloads:
            os.killpg(server.pid, signal.SIGTERM)
        else:
            server.terminate()

    def wait(self) -> None:
        """Wait until the server has ended."""
        self._processes[0].wait(TIMEOUT)

    def _start(self) -> None:
        kind = self.kind
        tls = self._certify() if kind.tls else None
        if kind.prints_port:
            self._spawn(self._command(-1))
            port = self._printed_port(1)
        else:
            with self._listen() as sock:
                bound: str | tuple[str, int] = sock.getsockname()
                port = 0 if isinstance(bound, str) else bound[1]
                self._spawn(self._command(sock.fileno()), sock.fileno())
            if kind.nginx:
                port = self._start_nginx(f"127.0.0.1:{port}" if port else f"unix:{bound}")
        self.address = Address(port, tls)
        try:
            self.state()
        except (OSError, EOFError, ValueError) as error:
            raise StartError(f"{kind.name} does not answer ({error!r}):\n{self.output}") from error

    def _listen(self) -> socket.socket:
        """Return a listening socket; connections wait in its queue until the server accepts."""
        if self.kind.unix:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(str(self._directory / "socket"))
            sock.listen(1024)
            return sock
        return socket.create_server(("127.0.0.1", 0), backlog=1024)

    def _command(self, fd: int) -> list[str]:
        program = find(self.kind.program) if self.kind.program else sys.executable
        places = {
            "fd": fd,
            "root": ROOT,
            "prefix": sys.prefix,
            "directory": self._directory,
        }
        return [program, *(argument.format(**places) for argument in self.kind.command)]

    def _spawn(self, command: list[str], *files: int, **environment: str) -> None:
        path = os.pathsep.join(filter(None, (str(self._directory), os.environ.get("PYTHONPATH"))))
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONUNBUFFERED": "1",
            "HOME": str(self._directory),  # gunicorn creates a socket there
            CERTIFICATES: str(self._directory),
            **environment,
        }
        with (self._directory / "output").open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
                env=environment,
                pass_fds=files,
                start_new_session=True,
            )
        self._processes.append(process)

    def _printed_port(self, number: int) -> int:
        """Return the port that is printed as the first, the second and so on."""
        deadline = monotonic() + TIMEOUT
        while len(ports := PRINTED_PORT.findall(self.output)) < number:
            if monotonic() > deadline or self._processes[0].poll() is not None:
                raise StartError(f"{self.kind.name} prints no port:\n{self.output}")
            sleep(0.01)
        return int(ports[number - 1])

    def _start_nginx(self, backend: str) -> int:
        """Start nginx in front of the server; return its port."""
        program = find("nginx")
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock:
            port: int = sock.getsockname()[1]
            configuration = self._directory / "nginx.conf"
            configuration.write_text(
                NGINX.format(
                    directory=self._directory,
                    user=Path("/proc/self").owner(),
                    backend=backend,
                    port=port,
                    directive=self.kind.nginx,
                )
            )
            # By this variable an nginx inherits the sockets of its predecessor.
            inherited = f"{sock.fileno()};"
            command = [program, "-p", str(self._directory), "-c", str(configuration)]
            self._spawn(command, sock.fileno(), NGINX=inherited)
        return port

    def _certify(self) -> ssl.SSLContext:
        """Write a certificate for the server; return the context of a client that trusts it."""
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        (chain,) = certificate.cert_chain_pems
        chain.write_to_path(str(self._directory / "cert.pem"))
        certificate.private_key_pem.write_to_path(str(self._directory / "key.pem"))
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context
