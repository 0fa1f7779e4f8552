"""The codec without the server: an echo on plain sockets, for one connection at a time.

``python examples/codec.py``, then ``websocat ws://localhost:9292/``.
"""

import socket
from email.parser import HeaderParser

from wsframe import Close, Connection, Failure, HandshakeError, Ping, Role, accept
from wsframe.fields import encode_response


def handshake(sock: socket.socket) -> bool:
    """Answer the upgrade request; False if it was invalid. A real server also limits its time."""
    head = b""
    while b"\r\n\r\n" not in head:
        byte = sock.recv(1)
        if not byte or len(head) == 16384:
            return False
        head += byte
    request_line, _, headers = head.decode("latin-1").partition("\r\n")
    try:
        answer = accept(HeaderParser().parsestr(headers).items(), method=request_line.split()[0])
    except HandshakeError as error:
        sock.sendall(encode_response(error.status, error.headers))
        return False
    sock.sendall(answer.encode())
    return True


def echo(sock: socket.socket) -> None:
    """Send every message back until the connection is closed."""
    connection = Connection(Role.SERVER)
    while data := sock.recv(65536):
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


if __name__ == "__main__":
    with socket.create_server(("localhost", 9292)) as listener:
        while True:
            sock, _ = listener.accept()
            with sock:
                if handshake(sock):
                    echo(sock)
