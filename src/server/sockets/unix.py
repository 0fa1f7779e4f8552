"""Unix sockets: a file through which clients of this machine come."""

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
except ImportError:  # Windows, which has no such sockets for Python either
    grp = None  # type: ignore[assignment]


class UnixFile:
    """The file of a unix socket that is listened on.

    A file that a dead server has left behind is replaced. Two servers that find it at the same
    moment are not kept apart.

    Its permissions and its group are set before the first client can connect.

    Args:
        path: where it is to be.
        mode: the permissions, as in 0o660; None for those that the umask leaves.
        group: the group, by name or number; None for the process's own.

    Attributes:
        path: the same, absolute.
        sock: what listens there.

    Raises:
        ListenError: a server is there, or a file that is no socket, or it cannot be written; or
            the process may not give the file to the group.
        ValueError: there is a null in the path, or no such group.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: int | None = None,
        group: str | int | None = None,
    ) -> None:
        self.path = os.path.abspath(path)
        if "\0" in self.path:  # to the system it would end there, or begin a name without a file
            raise ValueError(f"a path has no null in it: {self.path!r}")
        if not hasattr(socket, "AF_UNIX"):
            raise ListenError(errno.EAFNOSUPPORT, "this system has no unix sockets")
        self.sock = close_in_children(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            self._bind(os.fspath(path))
            self._identity = os.stat(self.path)
            try:
                self._restrict(mode, group)
            except BaseException:
                self.remove()
                raise
            self.sock.listen(BACKLOG)  # at once: another server would take it for left behind
            self.sock.setblocking(False)
        except BaseException as error:
            self.sock.close()
            if isinstance(error, OSError):
                raise ListenError(*error.args) from None
            raise

    def remove(self) -> None:
        """Any thread, before the socket is closed: remove the file, unless it is another by now."""
        with suppress(OSError):
            if os.path.samestat(self._identity, os.stat(self.path)):
                os.unlink(self.path)

    def _restrict(self, mode: int | None, group: str | int | None) -> None:
        """Set group and permissions; nobody can connect yet, because the socket does not listen."""
        if group is not None:
            try:
                os.chown(self.path, -1, group_number(group), follow_symlinks=False)
            except OSError as error:
                reason = (
                    f"the socket cannot have the group {group!r} (unix_group): {error.strerror}"
                )
                raise OSError(error.errno, reason) from None
        if mode is not None:
            os.chmod(self.path, mode)

    def _bind(self, path: str) -> None:
        """Bind to the path as it was given: the absolute one may be longer than is allowed."""
        try:
            self.sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_left_behind(path):
                raise
            os.unlink(path)
            self.sock.bind(path)


def group_number(group: str | int) -> int:
    """The number of a group.

    Raises:
        ValueError: there is none of this name.
    """
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f"there is no group {group!r} (unix_group)") from None


def _is_left_behind(path: str) -> bool:
    """Whether this is a socket on which nobody listens."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # one that listens may be too busy to take it
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
