"""The contenders: one for each implementation and group.

A contender makes a number of calls in a plain loop over local variables, which costs a few
nanoseconds a call. It also returns the result of one call, which is checked before any timing.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from itertools import repeat
from operator import concat
from types import FunctionType, ModuleType
from typing import Any

import wsframe

from .data import (
    BINARY,
    HANDSHAKE_ACCEPT,
    HANDSHAKE_KEY,
    KEY,
    TEXT,
    frame,
    frames_in_stream,
    masked,
    message,
    payload,
    stream,
    unmasked,
)


@dataclass(frozen=True)
class Contender:
    """One implementation at one task."""

    run: Callable[[int], object]  # makes this many calls
    result: Callable[[], object]  # of one call
    expected: object
    frames: int = 1  # or other units of the task, per call

    def __post_init__(self) -> None:
        """Give the loop bytecode of its own.

        The interpreter specialises a call site for its callee. In a loop that several contenders
        share, it would be specialised for the first contender.
        """
        if isinstance(run := self.run, FunctionType):
            own = FunctionType(
                run.__code__.replace(), run.__globals__, run.__name__, None, run.__closure__
            )
            object.__setattr__(self, "run", own)


Build = Callable[[int], Contender]
#: The contenders of each group, and the largest payload size of each.
GROUPS: dict[str, dict[str, tuple[Build, int]]] = {
    "mask": {},
    "mask_into": {},
    "take binary": {},
    "take text": {},
    "take one binary": {},
    "take one text": {},
    "encode": {},
    "encode_masked": {},
    "accept_key": {},
}
#: Lines about implementations that are not measured.
LEFT_OUT: list[str] = []


def contender(group: str, name: str, largest: int = sys.maxsize) -> Callable[[Build], Build]:
    """Register a function that builds a contender for a payload size."""

    def register(build: Build) -> Build:
        GROUPS[group][name] = (build, largest)
        return build

    return register


def decoder(name: str) -> Callable[[Callable[[bytes, int, int], Contender]], None]:
    """Register a decoder in the four groups; it is built for a stream, an opcode and a count."""

    def register(build: Callable[[bytes, int, int], Contender]) -> None:
        for kind, opcode in (("binary", BINARY), ("text", TEXT)):
            for group, in_stream in (("take", frames_in_stream), ("take one", lambda size: 1)):

                def build_for(
                    size: int, opcode: int = opcode, in_stream: Callable[[int], int] = in_stream
                ) -> Contender:
                    count = in_stream(size)
                    made = build(stream(size, opcode, count), opcode, count)
                    expected = [message(size, opcode)] * count
                    return Contender(made.run, made.result, expected, count)

                contender(f"{group} {kind}", name)(build_for)

    return register


def calls(function: Callable[..., object], *arguments: Any, expected: object) -> Contender:
    """Return a contender that calls a function with one or two arguments."""
    run: Callable[[int], None]
    if len(arguments) == 1:

        def run(n: int) -> None:
            f, (a,) = function, arguments
            for _ in repeat(None, n):
                f(a)

    else:

        def run(n: int) -> None:
            f, (a, b) = function, arguments
            for _ in repeat(None, n):
                f(a, b)

    return Contender(run, partial(function, *arguments), expected)


def in_place(function: Callable[..., object], size: int, *, key_first: bool = False) -> Contender:
    """Return a contender that masks bytearrays in place.

    Several take turns while they fit into the first-level cache. Repeating one buffer at once would
    read memory that is still being stored.
    """
    body, key = payload(size), KEY
    buffers = [bytearray(body) for _ in range(max(1, min(16, 16 * 1024 // max(size, 1))))]
    run: Callable[[int], None]
    if key_first:

        def run(n: int) -> None:
            f, k, turns = function, key, buffers
            for _ in repeat(None, n):
                for buffer in turns:
                    f(k, buffer)

    else:

        def run(n: int) -> None:
            f, k, turns = function, key, buffers
            for _ in repeat(None, n):
                for buffer in turns:
                    f(buffer, k)

    def result() -> bytearray:
        buffer = bytearray(body)
        function(*((key, buffer) if key_first else (buffer, key)))
        return buffer

    return Contender(run, result, masked(body, key), len(buffers))


def server_frame(size: int) -> bytes:
    """Return the expected result of an encoder."""
    return frame(BINARY, payload(size))


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("the coroutine waited for something")


def load(name: str, *modules: str) -> list[Any]:
    """Import a peer's modules; if it is not installed, note that and return an empty list."""
    try:
        return [importlib.import_module(module) for module in modules]
    except ImportError as error:
        LEFT_OUT.append(f"{name} is left out: {error}")
        return []


# The limit: Python's own operations on the same bytes ---------------------------------------------

COPY = "limit: bytes copy"
SLICE = "limit: bytes slice"
CONCAT = "limit: header + payload"
HASHLIB = "limit: hashlib + base64"


def copy(size: int) -> Contender:
    """Return the contender that only copies the payload."""
    return calls(bytes, memoryview(payload(size)), expected=payload(size))


for _group in ("mask", "mask_into", "encode", "encode_masked"):
    contender(_group, COPY)(copy)


@contender("encode", CONCAT)
def _(size: int) -> Contender:
    whole, body = server_frame(size), payload(size)
    return calls(concat, whole[: len(whole) - size], body, expected=whole)


@decoder(SLICE)
def _(data: bytes, opcode: int, count: int) -> Contender:
    length = len(data) // count
    size = length - (6 if length < 132 else 8 if length < 65544 else 14)
    places = [slice(end - size, end) for end in range(length, len(data) + 1, length)]

    def run(n: int) -> None:
        for _ in repeat(None, n):
            [data[place] for place in places]

    def result() -> list[str | bytes]:
        found: list[str | bytes] = []
        for place in places:
            key = data[place.start - 4 : place.start]
            body = masked(data[place], key)
            found.append(body.decode() if opcode == TEXT else body)
        return found

    return Contender(run, result, None)


@contender("accept_key", HASHLIB)
def _(size: int) -> Contender:
    def accept(key: str) -> str:
        guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        return b64encode(sha1(key.encode() + guid).digest()).decode()

    return calls(accept, HANDSHAKE_KEY, expected=HANDSHAKE_ACCEPT)


# wsframe, with both sets of kernels ---------------------------------------------------------------


def load_pure() -> ModuleType:
    """Import the package a second time, with the pure kernels, beside the one in use."""
    kept = {
        name: sys.modules.pop(name) for name in [*sys.modules] if name.split(".")[0] == "wsframe"
    }
    before = os.environ.get("WSFRAME_PURE")
    os.environ["WSFRAME_PURE"] = "1"
    try:
        return importlib.import_module("wsframe")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "wsframe"]:
            del sys.modules[name]
        sys.modules.update(kept)
        if before is None:
            del os.environ["WSFRAME_PURE"]
        else:
            os.environ["WSFRAME_PURE"] = before


def enter_wsframe(name: str, codec: Any) -> None:
    """Register one copy of the package in every group."""

    @contender("mask", name)
    def _(size: int) -> Contender:
        return calls(codec.mask, payload(size), KEY, expected=masked(payload(size), KEY))

    @contender("mask_into", name)
    def _(size: int) -> Contender:
        return in_place(codec.mask_into, size)

    @decoder(name)
    def _(data: bytes, opcode: int, count: int) -> Contender:
        receive = codec.Connection(codec.Role.SERVER).receive
        return calls(receive, data, expected=None)

    @contender("encode", name)
    def _(size: int) -> Contender:
        binary = codec.Opcode.BINARY
        return calls(codec.encode_frame, binary, payload(size), expected=server_frame(size))

    @contender("encode", f"{name} Connection")
    def _(size: int) -> Contender:
        encode = codec.Connection(codec.Role.SERVER).encode
        return calls(encode, payload(size), expected=server_frame(size))

    @contender("encode_masked", name)
    def _(size: int) -> Contender:
        encode_frame, binary, body = codec.encode_frame, codec.Opcode.BINARY, payload(size)

        def run(n: int) -> None:
            f, opcode, message = encode_frame, binary, body
            for _ in repeat(None, n):
                f(opcode, message, masking_key=True)

        def result() -> bytes:
            return unmasked(encode_frame(binary, body, masking_key=True))

        return Contender(run, result, server_frame(size))

    @contender("encode_masked", f"{name} Connection")
    def _(size: int) -> Contender:
        encode, body = codec.Connection(codec.Role.CLIENT).encode, payload(size)
        made = calls(encode, body, expected=None)
        return Contender(made.run, lambda: unmasked(encode(body)), server_frame(size))

    @contender("accept_key", name)
    def _(size: int) -> Contender:
        return calls(codec.accept_key, HANDSHAKE_KEY, expected=HANDSHAKE_ACCEPT)


WSFRAME, PURE = "wsframe", "wsframe pure"
if wsframe.ACCELERATED:
    enter_wsframe(WSFRAME, wsframe)
else:
    LEFT_OUT.append("wsframe with compiled kernels is left out: they are not built or are disabled")
enter_wsframe(PURE, load_pure())


# websockets ---------------------------------------------------------------------------------------

WEBSOCKETS = "websockets"


def enter_websockets(speedups: Any, frames: Any, protocol: Any, server: Any, utils: Any) -> None:
    """Register the C masking, the server's sans-I/O protocol and its frames."""

    @contender("mask", WEBSOCKETS)
    def _(size: int) -> Contender:
        return calls(speedups.apply_mask, payload(size), KEY, expected=masked(payload(size), KEY))

    @decoder(WEBSOCKETS)
    def _(data: bytes, opcode: int, count: int) -> Contender:
        connection = server.ServerProtocol(state=protocol.State.OPEN, max_size=None)
        receive, events = connection.receive_data, connection.events_received

        def take() -> list[Any]:
            receive(data)
            if opcode == TEXT:
                return [event.data.decode() for event in events()]
            return [event.data for event in events()]

        def run(n: int) -> None:
            for _ in repeat(None, n):
                take()

        return Contender(run, take, None)

    def serialize(size: int, *, mask: bool) -> Contender:
        make, binary, body = frames.Frame, frames.Opcode.BINARY, payload(size)

        def run(n: int) -> None:
            for _ in repeat(None, n):
                make(binary, body).serialize(mask=mask)

        def result() -> bytes:
            made: bytes = make(binary, body).serialize(mask=mask)
            return unmasked(made) if mask else made

        return Contender(run, result, server_frame(size))

    contender("encode", WEBSOCKETS)(partial(serialize, mask=False))
    contender("encode_masked", WEBSOCKETS)(partial(serialize, mask=True))

    @contender("accept_key", WEBSOCKETS)
    def _(size: int) -> Contender:
        return calls(utils.accept_key, HANDSHAKE_KEY, expected=HANDSHAKE_ACCEPT)


# picows -------------------------------------------------------------------------------------------

PICOWS = "picows"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Socket:
    """A stand-in for a socket, with the methods that a connection calls before it sends."""

    def fileno(self) -> int:
        """Return no descriptor."""
        return -1

    def setsockopt(self, *_: object) -> None:
        """Accept every option."""

    def getsockopt(self, *_: object) -> int:
        """Report every option as off."""
        return 0


class Transport:
    """An asyncio transport that keeps the last write and always reports unsent bytes.

    With unsent bytes in the transport, picows passes every frame to it instead of calling send(2).
    """

    def __init__(self) -> None:
        self.written: deque[bytes] = deque(maxlen=1)
        self.write = self.written.append
        self.is_closing = bool
        self.get_write_buffer_size = partial(int, 1)

    def writelines(self, parts: list[Any]) -> None:
        """Join the parts, because the task is a frame in one piece."""
        self.write(b"".join(parts))

    def get_extra_info(self, name: str) -> Socket | None:
        """Return the socket, and no other information."""
        return Socket() if name == "socket" else None


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose servers do not listen; it keeps their protocol factory instead."""

    make_protocol: Callable[[], Any]

    async def create_server(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:
        """Keep the factory."""
        self.make_protocol = protocol_factory


def enter_picows(picows: Any, extension: Any) -> None:
    """Register the parser behind its asyncio.BufferedProtocol, and WSTransport.send."""

    @decoder(PICOWS)
    def _(data: bytes, opcode: int, count: int) -> Contender:
        messages: list[str | bytes] = []
        keep = messages.append

        class Binary(picows.WSListener):  # type: ignore[misc]
            def on_ws_frame(self, transport: Any, frame: Any) -> None:
                keep(frame.get_payload_as_bytes())

        class Text(picows.WSListener):  # type: ignore[misc]
            def on_ws_frame(self, transport: Any, frame: Any) -> None:
                keep(frame.get_payload_as_utf8_text())

        listener = Text() if opcode == TEXT else Binary()

        async def connect() -> Any:
            await picows.ws_create_server(
                lambda request: listener,
                use_aiofastnet=False,
                # Room for the whole stream, so that it is received in one piece.
                read_buffer_init_size=max(16 * 1024, 2 * len(data)),
            )
            protocol = loop.make_protocol()
            protocol.connection_made(Transport())
            return protocol

        loop = Loop()
        try:
            protocol = loop.run_until_complete(connect())
        finally:
            loop.close()
        get_buffer, buffer_updated, size = protocol.get_buffer, protocol.buffer_updated, len(data)
        get_buffer(-1)[: len(UPGRADE)] = UPGRADE
        buffer_updated(len(UPGRADE))

        def run(n: int) -> None:
            for _ in repeat(None, n):
                get_buffer(-1)[:size] = data  # in place of recv_into
                buffer_updated(size)
                messages.clear()

        def result() -> list[str | bytes]:
            get_buffer(-1)[:size] = data
            buffer_updated(size)
            found = messages.copy()
            messages.clear()
            return found

        return Contender(run, result, None)

    def send_by(size: int, *, client: bool) -> Contender:
        loop = asyncio.new_event_loop()
        transport = Transport()
        try:
            logger = importlib.import_module("logging").getLogger("bench")
            send = extension.WSTransport(client, transport, logger, loop).send
        finally:
            loop.close()
        binary, body = picows.WSMsgType.BINARY, payload(size)

        def result() -> bytes:
            send(binary, body)
            made = transport.written[-1]
            return unmasked(made) if client else made

        return Contender(calls(send, binary, body, expected=None).run, result, server_frame(size))

    contender("encode", PICOWS)(partial(send_by, client=False))
    contender("encode_masked", PICOWS)(partial(send_by, client=True))


# wsproto ------------------------------------------------------------------------------------------

WSPROTO = "wsproto"


def enter_wsproto(connection: Any, events: Any, utilities: Any) -> None:
    """Register its sans-I/O connection."""

    @decoder(WSPROTO)
    def _(data: bytes, opcode: int, count: int) -> Contender:
        peer = connection.Connection(connection.ConnectionType.SERVER)
        receive, received = peer.receive_data, peer.events

        def run(n: int) -> None:
            for _ in repeat(None, n):
                receive(data)
                [event.data for event in received()]

        def result() -> list[str | bytes]:
            receive(data)
            found = [event.data for event in received()]
            return found if opcode == TEXT else [bytes(each) for each in found]

        return Contender(run, result, None)

    def send_by(size: int, *, client: bool) -> Contender:
        kinds = connection.ConnectionType
        send = connection.Connection(kinds.CLIENT if client else kinds.SERVER).send
        make, body = events.BytesMessage, payload(size)

        def run(n: int) -> None:
            for _ in repeat(None, n):
                send(make(body))

        def result() -> bytes:
            made = bytes(send(make(body)))
            return unmasked(made) if client else made

        return Contender(run, result, server_frame(size))

    contender("encode", WSPROTO)(partial(send_by, client=False))
    contender("encode_masked", WSPROTO)(partial(send_by, client=True))

    @contender("accept_key", WSPROTO)
    def _(size: int) -> Contender:
        accept, key = utilities.generate_accept_token, HANDSHAKE_KEY.encode()
        return calls(accept, key, expected=HANDSHAKE_ACCEPT.encode())


# aiohttp ------------------------------------------------------------------------------------------

AIOHTTP = "aiohttp"


def enter_aiohttp(mask: Any, reader: Any, writer: Any) -> None:
    """Register the compiled reader with its queue, the writer, and the compiled masking."""

    @contender("mask", AIOHTTP)
    def _(size: int) -> Contender:
        mask_in_place, body = mask._websocket_mask_cython, payload(size)

        def run(n: int) -> None:
            for _ in repeat(None, n):
                mask_in_place(KEY, bytearray(body))

        def result() -> bytearray:
            buffer = bytearray(body)
            mask_in_place(KEY, buffer)
            return buffer

        return Contender(run, result, masked(body, KEY))

    @contender("mask_into", AIOHTTP)
    def _(size: int) -> Contender:
        return in_place(mask._websocket_mask_cython, size, key_first=True)

    class Protocol:
        _paused = _reading_paused = False

    @decoder(AIOHTTP)
    def _(data: bytes, opcode: int, count: int) -> Contender:
        queue = reader.WebSocketDataQueue(Protocol(), 1 << 30, loop=None)
        feed, read = reader.WebSocketReader(queue, 1 << 30, False, True).feed_data, queue.read

        async def take(n: int) -> None:
            for _ in repeat(None, n):
                feed(data)
                for _ in repeat(None, count):
                    await read()

        async def take_once() -> list[str | bytes]:
            feed(data)
            return [(await read()).data for _ in range(count)]

        return Contender(lambda n: drive(take(n)), lambda: drive(take_once()), None)

    def send_by(size: int, *, client: bool) -> Contender:
        transport, body = Transport(), payload(size)
        send = writer.WebSocketWriter(Protocol(), transport, use_mask=client).send_frame

        async def work(n: int) -> None:
            for _ in repeat(None, n):
                await send(body, BINARY)

        def result() -> bytes:
            drive(work(1))
            made = bytes(transport.written[-1])
            return unmasked(made) if client else made

        return Contender(lambda n: drive(work(n)), result, server_frame(size))

    # It writes larger payloads in two pieces, without building a frame.
    contender("encode", AIOHTTP, largest=16 * 1024)(partial(send_by, client=False))
    contender("encode_masked", AIOHTTP)(partial(send_by, client=True))


# tornado and wsaccel: their masking ---------------------------------------------------------------


def enter_tornado(speedups: Any, websocket: Any) -> None:
    """Register the C masking and the accept key."""

    @contender("mask", "tornado")
    def _(size: int) -> Contender:
        body = payload(size)
        return calls(speedups.websocket_mask, KEY, body, expected=masked(body, KEY))

    @contender("accept_key", "tornado")
    def _(size: int) -> Contender:
        accept = websocket.WebSocketProtocol13.compute_accept_value
        return calls(accept, HANDSHAKE_KEY, expected=HANDSHAKE_ACCEPT)


def enter_wsaccel(xormask: Any) -> None:
    """Register the masking object, one for each payload."""

    @contender("mask", "wsaccel")
    def _(size: int) -> Contender:
        make, body = xormask.XorMaskerSimple, payload(size)

        def run(n: int) -> None:
            for _ in repeat(None, n):
                make(KEY).process(body)

        return Contender(run, lambda: make(KEY).process(body), masked(body, KEY))


for _name, _enter, _modules in (
    (WEBSOCKETS, enter_websockets, "speedups frames protocol server utils"),
    (PICOWS, enter_picows, " picows"),
    (AIOHTTP, enter_aiohttp, "_websocket.mask _websocket.reader _websocket.writer"),
    (WSPROTO, enter_wsproto, "connection events utilities"),
    ("tornado", enter_tornado, "speedups websocket"),
    ("wsaccel", enter_wsaccel, "xormask"),
):
    _loaded = load(_name, *(f"{_name}.{part}".rstrip(".") for part in _modules.split(" ")))
    if _loaded:
        _enter(*_loaded)
