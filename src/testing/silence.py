"""A filter that makes the system discard everything that a TCP socket receives (Linux).

The system of the client discards each segment before TCP processes it. So it acknowledges nothing,
as if its machine had lost power. Any program may attach such a filter to its own sockets.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys

# The socket options for filters (Linux: socket(7)), which the socket module does not define.
SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
# A program of classic BPF with one instruction (struct sock_filter): return the length 0.
DISCARD_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)


def discard_received(sock: socket.socket) -> None:
    """Discard all segments that the socket receives from now on.

    If all earlier data has been read, its delayed acknowledgement is sent at once.

    Raises:
        NotImplementedError: the socket is not a TCP socket, or this system is not Linux.
    """
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise NotImplementedError("a client can vanish only on Linux, and with a TCP connection")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    program = ctypes.create_string_buffer(DISCARD_ALL, len(DISCARD_ALL))
    # struct sock_fprog: the number of instructions, and their address, which the system copies.
    fprog = struct.pack("HP", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)


def accept_received(sock: socket.socket) -> None:
    """Undo :func:`discard_received`."""
    sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
