"""picows on one of its loops."""

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

from bench.event_loop import context, on_aiofastnet, run
from bench.given import compute, port


class Echo(WSListener):
    """A listener that sends every message back."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Send a frame back, or close."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


class Computing(WSListener):
    """A listener that computes for a while in every message, and sends it back."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Compute, and send the frame back."""
        compute()
        transport.send(frame.msg_type, frame.get_payload_as_memoryview())


def listener(request: WSUpgradeRequest) -> WSListener:
    """Return the listener for a request."""
    return Computing() if request.path == b"/compute" else Echo()


async def main() -> None:
    """Serve until the process is terminated."""
    server = await ws_create_server(
        listener,
        "127.0.0.1",
        port(),
        backlog=1024,
        use_aiofastnet=on_aiofastnet(),
        ssl=context(),
    )
    await server.serve_forever()


run(main())
