"""An echo server on asyncio and the codec: ``python examples/asyncio_echo.py``."""

import asyncio
from contextlib import ExitStack, suppress

from wsframe import Close, Connection, Failure, HandshakeError, Ping, RequestDecoder, Role


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    decoder, connection, request = RequestDecoder(), Connection(Role.SERVER), None
    writer.transport.set_write_buffer_limits(0)  # drain() waits until everything is sent
    with suppress(OSError), ExitStack() as stack:  # a lost connection, or a time-out
        stack.callback(writer.transport.abort)
        async with asyncio.timeout(60) as limit:  # for the request, and then for each event
            try:
                while not connection.close_sent and (data := await reader.read(16384)):
                    if request is None:
                        request, data = decoder.receive(data), decoder.rest
                        writer.write(request.accept().encode() if request else b"")
                    for event in connection.receive(data):
                        limit.reschedule(asyncio.get_running_loop().time() + 60)
                        match event:
                            case str() | bytes():
                                writer.write(connection.encode(event))
                            case Ping(payload):
                                writer.write(connection.pong(payload))
                            case Close(code, reason) | Failure(code, reason):
                                writer.write(connection.close(code, reason))
                    await writer.drain()  # back-pressure
            except HandshakeError as error:
                writer.write(error.encode())
            writer.write_eof()
            while await reader.read(16384):
                pass  # closing with unread data would reset the connection


if __name__ == "__main__":
    with asyncio.Runner() as runner:
        server = runner.run(asyncio.start_server(serve, "localhost", 9292))
        runner.run(server.serve_forever())
