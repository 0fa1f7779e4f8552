"""picows on one of its loops, with a send to each receiver."""

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

from bench.event_loop import on_aiofastnet, run
from bench.given import port

receivers: set[WSTransport] = set()


class Receiver(WSListener):
    """A receiver of published messages, which echoes its own messages."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Join the receivers."""
        receivers.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Send a frame back."""
        transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Leave the receivers."""
        receivers.discard(transport)


class Publisher(WSListener):
    """A publisher, whose messages are sent to all receivers."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Send a frame to all receivers."""
        payload = frame.get_payload_as_bytes()
        for receiver in receivers:
            receiver.send(WSMsgType.TEXT, payload)


def listener(request: WSUpgradeRequest) -> WSListener:
    """Return the listener for a request."""
    return Publisher() if request.path == b"/publish" else Receiver()


async def main() -> None:
    """Serve until the process is terminated."""
    server = await ws_create_server(
        listener, "127.0.0.1", port(), backlog=1024, use_aiofastnet=on_aiofastnet()
    )
    await server.serve_forever()


run(main())
