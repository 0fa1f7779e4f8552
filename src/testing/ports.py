"""Ports for servers that restart, and for programs that cannot listen on port 0."""

from __future__ import annotations

import errno
import secrets
import socket
import sys

# A range below the ports that the system assigns, so that no other program receives one. The ports
# 10,000 higher, on which a Redis cluster also listens, are below that range, too.
FIRST, COUNT = 12_000, 10_000
# The errors for a port that another program uses; Windows reserves ranges of ports.
TAKEN = (errno.EADDRINUSE, errno.EACCES)


class ReservedPort:
    """A port on an address of this machine that no other test uses; a context manager.

    A server that sets SO_REUSEADDR, as most do, can listen on the port repeatedly.

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
            self._sock.close()  # while a socket listens, no server could listen on the port
            return
        # Set after bind(), which therefore fails if another test has reserved the port.
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def release(self) -> None:
        """Release the port, so that other tests can use it."""
        self._sock.close()

    def __enter__(self) -> int:
        """Reserve the port, and return this object."""
        return self.number

    def __exit__(self, *_: object) -> None:
        """Release the port."""
        self.release()
