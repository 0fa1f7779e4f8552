"""picows on uvloop."""

import sys

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server


class Echo(WSListener):
    """A listener that sends every message back."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Send a frame back, or close."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


async def main() -> None:
    """Serve until the process is terminated."""
    server = await ws_create_server(
        lambda request: Echo(), "127.0.0.1", int(sys.argv[1]), backlog=1024
    )
    await server.serve_forever()


uvloop.run(main())
