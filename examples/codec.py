"""The codec without the server: an echo on plain sockets, for one connection at a time.

``python examples/codec.py``, then ``websocat ws://localhost:9292/``.
"""

import socket

from wsframe import Close, Connection, Failure, HandshakeError, Ping, RequestDecoder, Role


def handshake(sock: socket.socket) -> bytes | None:
    """Answer the upgrade request; return the first frames, or None if it was refused.

    A real server also limits the time.
    """
    decoder = RequestDecoder()
    try:
        while data := sock.recv(65536):
            if (request := decoder.receive(data)) is not None:
                sock.sendall(request.accept().encode())
                return decoder.rest
    except HandshakeError as error:
        sock.sendall(error.encode())
    return None


def echo(sock: socket.socket, data: bytes) -> None:
    """Send every message back until the connection is closed."""
    connection = Connection(Role.SERVER)
    while True:
        for event in connection.receive(data):
            match event:
                case str() | bytes():
                    sock.sendall(connection.encode(event))
                case Ping(payload):
                    sock.sendall(connection.pong(payload))
                case Close(code, _):
                    sock.sendall(connection.close(code))
                    return
                case Failure(code, reason):
                    sock.sendall(connection.close(code, reason))
                    return
        if not (data := sock.recv(65536)):
            return


if __name__ == "__main__":
    with socket.create_server(("localhost", 9292)) as listener:
        while True:
            sock, _ = listener.accept()
            with sock:
                first = handshake(sock)
                if first is not None:
                    echo(sock, first)
