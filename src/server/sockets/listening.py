"""The listening sockets of a server: opened by the process itself, or inherited."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..forks import close_in_children, disconnect
from .listener import ListenError, bind
from .unix import UnixFile

if TYPE_CHECKING:
    from ..settings import Settings

# The first descriptor that a service manager passes (sd_listen_fds(3)).
FIRST_FD = 3


@dataclass(frozen=True, eq=False)
class Listening:
    """The listening sockets of a server.

    Attributes:
        host: the name or address that the server was started with; "" for a unix socket.
        sockets: the bound sockets; none for a server that adopts connections from a WSGI server.
        file: the file of the unix socket, if this process has created it.
        path: the absolute path of the unix socket; "" without one.
        kept: True if another process has copies of the sockets, and continues to listen.
    """

    host: str = ""
    sockets: Sequence[socket.socket] = ()
    file: UnixFile | None = None
    path: str = ""
    kept: bool = False

    @cached_property
    def port(self) -> int:
        """Any thread: the port; 0 for a unix socket."""
        if not self.sockets or _is_unix(self.sockets[0]):
            return 0
        port: int = self.sockets[0].getsockname()[1]
        return port

    def url(self, *, secured: bool) -> str:
        """Any thread: return the URL of the server, for the log."""
        scheme = "https" if secured else "http"
        if self.sockets and _is_unix(self.sockets[0]):
            return f"{scheme}+unix://{quote(self.path, safe='')}"
        host = self.host or "localhost"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def in_worker(self) -> Listening:
        """The child of a fork: return the same sockets for this process and its parent."""
        for sock in self.sockets:
            close_in_children(sock)
        return Listening(self.host, self.sockets, None, self.path, kept=True)

    def close(self) -> None:
        """Any thread: remove the file, and close the sockets, in all processes unless ``kept``."""
        if self.file is not None:
            self.file.remove()
        for sock in self.sockets:
            if self.kept:
                sock.close()
            else:
                disconnect(sock)


def listen(host: str, port: int, settings: Settings) -> Listening:
    """Open or inherit the sockets that the settings name.

    Raises:
        ListenError: the address is unknown or in use, or an inherited socket does not listen.
        ValueError: a value of the unix socket is not valid.
    """
    if settings.fds:
        return _inherited(settings.fds)
    if settings.unix is not None:
        file = UnixFile(settings.unix, settings.unix_mode, settings.unix_group)
        return Listening("", [file.sock], file, file.path)
    return Listening(host, bind(host, port))


def listen_for_workers(host: str, port: int, settings: Settings, workers: int) -> list[Listening]:
    """Open or inherit the sockets of each worker process.

    Each worker process has its own socket on the shared port, and the system distributes
    connections evenly. The parent keeps all sockets open, so that a waiting connection does not end
    with its worker. Unix sockets and inherited sockets are shared by all workers.

    Raises:
        ListenError, ValueError: as :func:`listen`.
    """
    if settings.fds or settings.unix is not None:
        return [listen(host, port, settings)] * workers
    # The first sockets are bound without sharing, to detect another program on the port.
    for sock in bind(host, port):
        port = sock.getsockname()[1]
        sock.close()
    opened: list[Listening] = []
    try:
        for _ in range(workers):
            opened.append(Listening(host, bind(host, port, shared=True)))
    except BaseException:
        for each in opened:
            each.close()
        raise
    return opened


def activated(environment: MutableMapping[str, str]) -> range:
    """Return the descriptors of the sockets that a service manager has passed to this process.

    The environment variables are removed, so that child processes do not use them.
    """
    names = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    pid, count, _ = (environment.pop(name, "") for name in names)
    if pid != str(os.getpid()) or not re.fullmatch("[0-9]{1,4}", count):
        return range(0)
    return range(FIRST_FD, FIRST_FD + int(count))


def _inherited(fds: Sequence[int]) -> Listening:
    sockets: list[socket.socket] = []
    try:
        for fd in fds:
            sockets.append(_take(fd))
    except BaseException:
        for sock in sockets:
            sock.detach()
        raise
    path = next((_path(sock) for sock in sockets if _is_unix(sock)), "")
    host = "" if _is_unix(sockets[0]) else sockets[0].getsockname()[0]
    return Listening(host, sockets, None, path, kept=True)


def _take(fd: int) -> socket.socket:
    """Return the listening socket with this descriptor.

    Raises:
        ListenError: the descriptor is not a listening socket.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        raise ListenError(
            error.errno, f"cannot use file descriptor {fd}: {error.strerror} (setting fds)"
        ) from None
    supported = sock.family in (socket.AF_INET, socket.AF_INET6) or _is_unix(sock)
    if not (supported and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)):
        sock.detach()
        raise ListenError(
            errno.EINVAL, f"file descriptor {fd} is not a listening socket (setting fds)"
        )
    sock.setblocking(False)
    sock.set_inheritable(False)
    return close_in_children(sock)


def _is_unix(sock: socket.socket) -> bool:
    return sock.family == getattr(socket, "AF_UNIX", None)


def _path(sock: socket.socket) -> str:
    """Return the path of a unix socket; an abstract name begins with @."""
    name: str | bytes = sock.getsockname()
    if isinstance(name, bytes):
        return name.replace(b"\0", b"@", 1).decode(errors="replace")
    return os.path.abspath(name)
