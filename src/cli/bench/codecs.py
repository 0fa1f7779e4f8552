"""The measured implementations of the codec, and the measured tasks.

Each task makes a number of calls in a plain loop, which adds a few nanoseconds to each call.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import repeat
from typing import Any

from wsframe import Connection, Opcode, Role, encode_frame

# The choice of the peers, for the help and the result.
PEERS = (
    "The peers are websockets and wsproto, which have a public codec without I/O. The codecs of "
    "aiohttp and picows are private parts of their asyncio connections, so they are not measured."
)
STREAM = 1 << 16  # the size of the frames in one buffer, in bytes; at least one frame


@dataclass(frozen=True)
class Decoding:
    """The task to decode the frames of a client.

    Attributes:
        size: the size of a payload.
        text: True for text, False for binary messages.
        frames: the number of frames in a call.
    """

    size: int
    text: bool
    frames: int

    def __str__(self) -> str:
        how = "a buffer of frames" if self.frames > 1 else "a frame a call"
        return f"decode {how}, {label(self.size)} {'text' if self.text else 'binary'}"

    @property
    def payload(self) -> str | bytes:
        """The message in each frame."""
        if self.text:
            return "x" * self.size
        return (bytes(range(256)) * (self.size // 256 + 1))[: self.size]

    @property
    def data(self) -> bytes:
        """The frames, as one buffer."""
        opcode = Opcode.TEXT if self.text else Opcode.BINARY
        payload = self.payload
        encoded = payload.encode() if isinstance(payload, str) else payload
        return encode_frame(opcode, encoded, masking_key=True) * self.frames


@dataclass(frozen=True)
class Encoding:
    """The task to encode a binary message.

    Attributes:
        size: the size of the payload.
        client: True for a frame of a client, which is masked.
    """

    size: int
    client: bool
    frames: int = 1

    def __str__(self) -> str:
        return f"encode a {'client' if self.client else 'server'}'s frame, {label(self.size)}"

    @property
    def payload(self) -> bytes:
        """The message."""
        return bytes(self.size)


Task = Decoding | Encoding
#: A function that calls a task this many times.
Calls = Callable[[int], None]

TASKS: tuple[Task, ...] = (
    Decoding(16, text=False, frames=512),
    Decoding(125, text=True, frames=256),
    Decoding(65536, text=False, frames=4),
    Decoding(125, text=True, frames=1),
    Encoding(125, client=False),
    Encoding(125, client=True),
)


def label(size: int) -> str:
    """Return a size as text, such as "64 KiB"."""
    return f"{size >> 10} KiB" if size >= 1024 else f"{size} B"


@dataclass(frozen=True)
class Codec:
    """An implementation.

    Attributes:
        name: its name and version.
        decode: a function that returns a function that decodes a buffer to its messages.
        encode: a function that returns a function that encodes a binary message.
    """

    name: str
    decode: Callable[[], Callable[[bytes], list[Any]]]
    encode: Callable[[bool], Callable[[bytes], bytes]]

    def calls(self, task: Task) -> Calls:
        """Return the calls of a task, after a check of one result.

        Raises:
            ValueError: the result is wrong.
        """
        function: Callable[[bytes], Any]
        if isinstance(task, Decoding):
            function, argument = self.decode(), task.data
            right = [*map(_plain, function(argument))] == [task.payload] * task.frames
        else:
            function, argument = self.encode(task.client), task.payload
            there = Connection(Role.SERVER if task.client else Role.CLIENT)
            right = there.receive(function(argument)) == [task.payload]
        if not right:
            raise ValueError(f"{self.name} returns a wrong result: {task}")

        def call(count: int) -> None:
            f, a = function, argument
            for _ in repeat(None, count):
                f(a)

        return call


def _plain(message: Any) -> Any:
    return bytes(message) if isinstance(message, bytearray) else message


def installed() -> list[Codec]:
    """Return wsframe, and the other sans-I/O implementations that are installed."""
    codecs = [Codec("wsframe", _decode, _encode)]
    for name, enter, modules in (
        (
            "websockets",
            _websockets,
            ("websockets.frames", "websockets.server", "websockets.protocol"),
        ),
        ("wsproto", _wsproto, ("wsproto.connection", "wsproto.events")),
    ):
        try:
            loaded = [importlib.import_module(module) for module in modules]
            codecs.append(enter(f"{name} {version(name)}", *loaded))
        except (ImportError, AttributeError):
            # The package is not installed, or has an unknown version.
            continue
    return codecs


def _decode() -> Callable[[bytes], list[Any]]:
    return Connection(Role.SERVER).receive


def _encode(client: bool) -> Callable[[bytes], bytes]:
    return Connection(Role.CLIENT if client else Role.SERVER).encode


def _websockets(name: str, frames: Any, server: Any, protocol: Any) -> Codec:
    def decode() -> Callable[[bytes], list[Any]]:
        connection = server.ServerProtocol(state=protocol.State.OPEN, max_size=None)
        receive, received, text = (
            connection.receive_data,
            connection.events_received,
            frames.Opcode.TEXT,
        )

        def take(data: bytes) -> list[Any]:
            receive(data)
            return [
                frame.data.decode() if frame.opcode is text else frame.data for frame in received()
            ]

        return take

    def encode(client: bool) -> Callable[[bytes], bytes]:
        make, binary = frames.Frame, frames.Opcode.BINARY
        return lambda message: make(binary, message).serialize(mask=client)

    return Codec(name, decode, encode)


def _wsproto(name: str, connection: Any, events: Any) -> Codec:
    kinds = connection.ConnectionType

    def decode() -> Callable[[bytes], list[Any]]:
        peer = connection.Connection(kinds.SERVER)
        receive, received = peer.receive_data, peer.events

        def take(data: bytes) -> list[Any]:
            receive(data)
            return [event.data for event in received()]

        return take

    def encode(client: bool) -> Callable[[bytes], bytes]:
        send = connection.Connection(kinds.CLIENT if client else kinds.SERVER).send
        return partial(_send, send, events.BytesMessage)

    return Codec(name, decode, encode)


def _send(send: Callable[[Any], bytes], make: Callable[[bytes], Any], message: bytes) -> bytes:
    return send(make(message))
