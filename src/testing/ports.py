"""Ports for servers that restart, and for programs that cannot choose one themselves."""

from __future__ import annotations

import errno
import secrets
import socket
import sys

# Below the ports that the system chooses: it gives none of them to another program meanwhile. That
# must hold for the ports 10,000 higher, too, at which a Redis cluster also listens.
FIRST, COUNT = 12_000, 10_000
# The errors for a port that another program uses; Windows reserves ranges of ports.
TAKEN = (errno.EADDRINUSE, errno.EACCES)


class ReservedPort:
    """A port on an address of this machine that no other test uses; a context manager.

    A server with SO_REUSEADDR, as nearly all have, can listen on it, and stop and start again.

    Example::

        with ReservedPort() as port:
            subprocess.run(["program", "--port", str(port)])

    Args:
        host: the address.

    Attributes:
        number: the port.

    Raises:
        OSError: this machine does not have the address.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        while True:
            self._sock = socket.socket(family)
            self.number: int = FIRST + secrets.randbelow(COUNT)
            try:
                self._sock.bind((host, self.number))
            except OSError as error:
                self._sock.close()
                if error.errno not in TAKEN:
                    raise
                continue
            break
        if sys.platform != "linux":
            self._sock.close()  # a server could not listen on the port meanwhile
            return
        # Only from now on: so the reservations of other tests, which have the option, count.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def release(self) -> None:
        """Let other tests use the port."""
        self._sock.close()

    def __enter__(self) -> int:
        """Return the port."""
        return self.number

    def __exit__(self, *_: object) -> None:
        """Release the port."""
        self.release()
