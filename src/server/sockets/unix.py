"""Unix sockets: a file through which clients on the same machine connect."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress

from ..forks import close_in_children
from .listener import BACKLOG, ListenError

try:
    import grp
except ImportError:  # Windows, where Python does not support unix sockets either
    grp = None  # type: ignore[assignment]


class UnixFile:
    """The file of a listening unix socket.

    The stale file of a dead server is replaced; two servers might replace it at the same moment.
    The permissions and the group are set before the first client can connect.

    Args:
        path: the path of the file.
        mode: the permissions, as in 0o660; None for the default of the umask.
        group: the group, by name or number; None for the group of the process.

    Attributes:
        path: the absolute path.
        sock: the listening socket.

    Raises:
        ListenError: another server listens on the path, another kind of file exists, the file
            cannot be created, or the process may not assign the group.
        ValueError: the path contains a null character, or the group does not exist.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: int | None = None,
        group: str | int | None = None,
    ) -> None:
        self.path: str = os.path.abspath(path)
        if "\0" in self.path:  # the system would truncate the path, or use an abstract name
            raise ValueError(
                f"the path of a unix socket must not contain a null character: {self.path!r}"
            )
        if not hasattr(socket, "AF_UNIX"):
            raise ListenError(errno.EAFNOSUPPORT, "this system does not support unix sockets")
        self.sock: socket.socket = close_in_children(
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        )
        try:
            self._bind(os.fspath(path))
            self._identity = os.stat(self.path)
            try:
                self._restrict(mode, group)
            except BaseException:
                self.remove()
                raise
            # Until the socket listens, another server would consider its file stale.
            self.sock.listen(BACKLOG)
            self.sock.setblocking(False)
        except BaseException as error:
            self.sock.close()
            if isinstance(error, OSError):
                raise ListenError.of(os.fspath(path), error) from None
            raise

    def remove(self) -> None:
        """Any thread: remove the file, unless it was replaced, or the socket is closed."""
        if self.sock.fileno() < 0:
            return  # the file was removed before, and its inode number may be reused
        with suppress(OSError):
            if os.path.samestat(self._identity, os.stat(self.path)):
                os.unlink(self.path)

    def _restrict(self, mode: int | None, group: str | int | None) -> None:
        """Set the group and the permissions, before listen() lets a client connect."""
        if group is not None:
            try:
                os.chown(self.path, -1, group_number(group), follow_symlinks=False)
            except OSError as error:
                message = f"cannot assign the group {group!r} to the socket (unix_group)"
                advice = "the user of the process must be root or a member of the group"
                raise OSError(error.errno, f"{message}: {error.strerror}; {advice}") from None
        if mode is not None:
            os.chmod(self.path, mode)

    def _bind(self, path: str) -> None:
        """Bind to the path as given, because the absolute path may be too long for a socket."""
        try:
            self.sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                message = "the path is in use by a file that is not a unix socket; remove the file"
                raise OSError(errno.EEXIST, message) from None
            if not _is_stale(path):
                raise
            os.unlink(path)
            self.sock.bind(path)


def group_number(group: str | int) -> int:
    """Return the number of a group.

    Raises:
        ValueError: no group has this name.
    """
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f"no such group: {group!r} (unix_group)") from None


def _is_stale(path: str) -> bool:
    """Return True if no server listens on this unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a listening server may be too busy to accept
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
