"""Contenders for compressed messages, fragments and pings, which the kernels do not decode.

Compression keeps its context (RFC 7692 section 7.1.1), the frames are a client's, and each message,
fragment or ping is a separate read.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable
from functools import cache
from itertools import repeat
from random import Random
from types import ModuleType
from typing import Any

import wsframe

from .codecs import (
    AIOHTTP,
    GROUPS,
    PURE,
    WEBSOCKETS,
    WSFRAME,
    WSPROTO,
    Contender,
    Transport,
    contender,
    drive,
    load,
    load_pure,
)
from .data import KEY, LETTERS, TEXT, frame, unmasked

ZLIB = "limit: bare zlib"
FRAGMENTS, PINGS, MESSAGES = 16, 64, 64
PING, PONG = 0x9, 0xA
TAIL = b"\x00\x00\xff\xff"

#: The groups of this file and their payload sizes.
SIZES_OF = {
    "deflate": (1024,),
    "inflate": (1024,),
    "deflate and inflate": (1024,),
    "fragments": (16, 125, 1024),
    "pings": (16, 125),
}
GROUPS.update({group: {} for group in SIZES_OF})

# Bytes on the wire --------------------------------------------------------------------------------


@cache
def json_messages(size: int) -> list[str]:
    """Return texts like an application's; together they are larger than any window."""
    random = Random(size)
    words = ["order", "status", "pending", "shipped", "customer", "quantity", "price", "note"]

    def record() -> str:
        number = random.randrange(10**9)
        fields: dict[str, object] = {"id": number, "at": f"2026-01-01T00:00:{number % 60:02}Z"}
        while len(json.dumps(fields)) < size:
            word = random.choice(words)
            value = " ".join(random.choices(words, k=3)) if random.random() < 0.5 else number % 9973
            fields[f"{word}_{len(fields)}"] = value
            number = random.randrange(10**9)
        return json.dumps(fields)[:size]

    return [record() for _ in range(MESSAGES)]


@cache
def compressed(size: int) -> tuple[list[bytes], list[bytes]]:
    """Return the frames of all messages twice.

    After the first pass the window is the same as after each later pass, so the frames of the
    second pass can be read repeatedly.
    """
    compressor = zlib.compressobj(wbits=-15)

    def frames() -> list[bytes]:
        made = []
        for text in json_messages(size):
            data = compressor.compress(text.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
            whole = frame(TEXT, data.removesuffix(TAIL), KEY)
            made.append(bytes((whole[0] | 0x40,)) + whole[1:])
        return made

    return frames(), frames()


@cache
def fragments(size: int) -> list[bytes]:
    """Return the frames of one text."""
    frames = []
    for number, part in enumerate(parts(size)):
        whole = frame(TEXT if number == 0 else 0, part, KEY)
        fin = 0x80 if number == FRAGMENTS - 1 else 0
        frames.append(bytes((whole[0] & 0x7F | fin,)) + whole[1:])
    return frames


@cache
def parts(size: int) -> list[bytes]:
    """Return the payloads of the fragments."""
    random = Random(size)
    return [bytes(random.choices(LETTERS, k=size)) for _ in range(FRAGMENTS)]


@cache
def pings(size: int) -> list[bytes]:
    """Return pings, each with its own payload."""
    random = Random(size)
    return [frame(PING, random.randbytes(size), KEY) for _ in range(PINGS)]


@cache
def pongs(size: int) -> list[bytes]:
    """Return a server's answers to the pings."""
    return [bytes((0x80 | PONG,)) + unmasked(ping)[1:] for ping in pings(size)]


def inflated(frames: Iterable[bytes]) -> list[str]:
    """Return the texts in a server's compressed frames, each shorter than 64 KiB."""
    decompressor = zlib.decompressobj(-15)
    texts = []
    for each in frames:
        payload = each[4:] if each[1] == 126 else each[2:]
        texts.append(decompressor.decompress(payload + TAIL).decode())
    return texts


# How contenders are built -------------------------------------------------------------------------

Receive = Callable[[bytes], list[Any]]
Encode = Callable[[str], bytes]
Answer = Callable[[bytes], bytes]


def enter_compressed(
    name: str, receiver: Callable[[bool], Receive], encoder: Callable[[bool], Encode]
) -> None:
    """Register one implementation in the groups with compression.

    Args:
        name: the name of the implementation.
        receiver: creates a server's function from a read to the completed messages, with or without
            compression.
        encoder: creates a function from a text to its compressed frame, for either role.
    """

    @contender("deflate", name)
    def _(size: int) -> Contender:
        texts, encode = json_messages(size), encoder(False)

        def run(n: int) -> None:
            f = encode
            for _ in repeat(None, n):
                for text in texts:
                    f(text)

        def result() -> list[str]:
            return inflated(list(map(encoder(False), texts)))

        return Contender(run, result, texts, MESSAGES)

    @contender("inflate", name)
    def _(size: int) -> Contender:
        first, again = compressed(size)
        receive = receiver(True)
        for each in first:
            receive(each)
        return reads(receive, again, json_messages(size), MESSAGES)

    @contender("deflate and inflate", name)
    def _(size: int) -> Contender:
        texts, encode, receive = json_messages(size), encoder(True), receiver(True)

        def run(n: int) -> None:
            f, g = encode, receive
            for _ in repeat(None, n):
                for text in texts:
                    g(f(text))

        def result() -> list[str]:
            return [message for text in texts for message in receive(encode(text))]

        return Contender(run, result, texts, MESSAGES)


def enter_uncompressed(
    name: str, receiver: Callable[[bool], Receive], answerer: Callable[[], Answer]
) -> None:
    """Register one implementation in the groups without compression.

    Args:
        name: the name of the implementation.
        receiver: as above.
        answerer: creates a server's function from a read with a ping to its answer.
    """

    @contender("fragments", name)
    def _(size: int) -> Contender:
        whole = b"".join(parts(size)).decode()
        return reads(receiver(False), fragments(size), [whole], FRAGMENTS)

    @contender("pings", name)
    def _(size: int) -> Contender:
        answer = answerer()

        def answers(read: bytes) -> list[bytes]:
            return [answer(read)]

        made = reads(answers, pings(size), pongs(size), PINGS)
        calls = reads(answer, pings(size), None, PINGS)  # without the list around each answer
        return Contender(calls.run, made.result, made.expected, PINGS)


def reads(
    receive: Callable[[bytes], Any], data: list[bytes], expected: Any, units: int
) -> Contender:
    """Return a contender for consecutive reads."""

    def run(n: int) -> None:
        f, parts = receive, data
        for _ in repeat(None, n):
            for part in parts:
                f(part)

    def result() -> list[Any]:
        return [item for part in data for item in receive(part)]

    return Contender(run, result, expected, units)


# The implementations ------------------------------------------------------------------------------


@contender("deflate", ZLIB)
def _(size: int) -> Contender:
    texts = json_messages(size)
    compressor = zlib.compressobj(wbits=-15)

    def run(n: int) -> None:
        compress, flush, mode = compressor.compress, compressor.flush, zlib.Z_SYNC_FLUSH
        for _ in repeat(None, n):
            for text in texts:
                compress(text.encode()) + flush(mode)

    return Contender(run, lambda: texts, texts, MESSAGES)


@contender("inflate", ZLIB)
def _(size: int) -> Contender:
    first, again = ([(unmasked(each)[4:] + TAIL) for each in frames] for frames in compressed(size))
    decompress = zlib.decompressobj(-15).decompress
    for each in first:
        decompress(each)
    return reads(lambda each: [decompress(each).decode()], again, json_messages(size), MESSAGES)


@contender("deflate and inflate", ZLIB)
def _(size: int) -> Contender:
    texts = json_messages(size)
    compressor, decompress = zlib.compressobj(wbits=-15), zlib.decompressobj(-15).decompress

    def there_and_back(text: str) -> str:
        data = compressor.compress(text.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
        return decompress(data).decode()

    def run(n: int) -> None:
        f = there_and_back
        for _ in repeat(None, n):
            for text in texts:
                f(text)

    return Contender(run, lambda: [there_and_back(text) for text in texts], texts, MESSAGES)


def enter_wsframe(name: str, codec: Any, **settings: Any) -> None:
    """Register one copy of the package with one kind of compression."""
    deflate = codec.PerMessageDeflate(**settings)

    def receiver(compression: bool) -> Receive:
        receive: Receive = codec.Connection(
            codec.Role.SERVER, deflate=deflate if compression else None
        ).receive
        return receive

    def encoder(client: bool) -> Encode:
        role = codec.Role.CLIENT if client else codec.Role.SERVER
        encode: Encode = codec.Connection(role, deflate=deflate).encode
        return encode

    def answerer() -> Answer:
        connection = codec.Connection(codec.Role.SERVER)
        receive, pong = connection.receive, connection.pong

        def answer(read: bytes) -> bytes:
            frame: bytes = pong(receive(read)[0].payload)
            return frame

        return answer

    enter_compressed(name, receiver, encoder)
    if not settings:
        enter_uncompressed(name, receiver, answerer)


if wsframe.ACCELERATED:
    enter_wsframe(WSFRAME, wsframe)
    enter_wsframe(f"{WSFRAME}, level 1", wsframe, level=1)
    for _backend in ("zlib-ng", "isal"):
        if load(f"wsframe with {_backend}", {"zlib-ng": "zlib_ng", "isal": "isal"}[_backend]):
            enter_wsframe(f"{WSFRAME}, {_backend}", wsframe, backend=_backend)
enter_wsframe(PURE, load_pure())


def enter_websockets(
    server: ModuleType, client: ModuleType, protocol: Any, frames: Any, deflate: Any, uri: Any
) -> None:
    """Register its sans-I/O protocols."""

    def open_protocol(role: str, compression: bool) -> Any:
        extensions = [deflate.PerMessageDeflate(False, False, 15, 15)] if compression else []
        if role == "server":
            made = server.ServerProtocol(state=protocol.State.OPEN, max_size=None)
        else:
            made = client.ClientProtocol(
                uri.parse_uri("ws://bench/"), state=protocol.State.OPEN, max_size=None
            )
        made.extensions = extensions
        return made

    def receiver(compression: bool) -> Receive:
        connection = open_protocol("server", compression)
        take, events = connection.receive_data, connection.events_received
        parts: list[bytes] = []

        def receive(read: bytes) -> list[str]:
            take(read)
            texts = []
            for event in events():
                parts.append(event.data)
                if event.fin:
                    texts.append(b"".join(parts).decode())
                    parts.clear()
            return texts

        return receive

    def encoder(client: bool) -> Encode:
        connection = open_protocol("client" if client else "server", True)
        send, taken = connection.send_text, connection.data_to_send

        def encode(text: str) -> bytes:
            send(text.encode())
            return b"".join(taken())

        return encode

    def answerer() -> Answer:
        connection = open_protocol("server", False)
        take, events, taken = (
            connection.receive_data,
            connection.events_received,
            connection.data_to_send,
        )

        def answer(read: bytes) -> bytes:
            take(read)
            events()
            return b"".join(taken())

        return answer

    enter_compressed(WEBSOCKETS, receiver, encoder)
    enter_uncompressed(WEBSOCKETS, receiver, answerer)


def enter_wsproto(connection: Any, events: Any, extensions: Any) -> None:
    """Register its sans-I/O connection."""

    def opened(kind: str, compression: bool) -> Any:
        kinds = connection.ConnectionType
        agreed = []
        if compression:
            deflate = extensions.PerMessageDeflate()
            deflate._enabled = True
            agreed.append(deflate)
        return connection.Connection(
            kinds.CLIENT if kind == "client" else kinds.SERVER, extensions=agreed
        )

    def receiver(compression: bool) -> Receive:
        peer = opened("server", compression)
        take, taken = peer.receive_data, peer.events
        parts: list[str] = []

        def receive(read: bytes) -> list[str]:
            take(read)
            texts = []
            for event in taken():
                parts.append(event.data)
                if event.message_finished:
                    texts.append("".join(parts))
                    parts.clear()
            return texts

        return receive

    def encoder(client: bool) -> Encode:
        send, make = opened("client" if client else "server", True).send, events.TextMessage
        return lambda text: bytes(send(make(text)))

    def answerer() -> Answer:
        peer = opened("server", False)
        take, taken, send = peer.receive_data, peer.events, peer.send

        def answer(read: bytes) -> bytes:
            take(read)
            return b"".join([send(event.response()) for event in taken()])

        return answer

    enter_compressed(WSPROTO, receiver, encoder)
    enter_uncompressed(WSPROTO, receiver, answerer)


def enter_aiohttp(reader: Any, writer: Any) -> None:
    """Register the compiled reader with its queue, and the writer, which compresses at level 1."""

    class Protocol:
        _paused = _reading_paused = False

    def queue_and_feed(compression: bool) -> tuple[Any, Any]:
        queue = reader.WebSocketDataQueue(Protocol(), 1 << 30, loop=None)
        return queue, reader.WebSocketReader(queue, 1 << 30, compression, True).feed_data

    def receiver(compression: bool) -> Receive:
        queue, feed = queue_and_feed(compression)
        read_one, waiting = queue.read, queue._buffer

        def receive(read: bytes) -> list[str]:
            feed(read)
            return [drive(read_one()).data for _ in range(len(waiting))]

        return receive

    def sender(*, client: bool, compress: int) -> tuple[Transport, Any]:
        transport = Transport()
        made = writer.WebSocketWriter(Protocol(), transport, use_mask=client, compress=compress)
        return transport, made.send_frame

    def encoder(client: bool) -> Encode:
        transport, send = sender(client=client, compress=15)
        written = transport.written

        def encode(text: str) -> bytes:
            drive(send(text.encode(), TEXT))
            return written[-1]

        return encode

    def answerer() -> Answer:
        queue, feed = queue_and_feed(False)
        transport, send = sender(client=False, compress=0)
        written, read_one = transport.written, queue.read

        def answer(read: bytes) -> bytes:
            feed(read)
            drive(send(drive(read_one()).data, PONG))
            return bytes(written[-1])

        return answer

    enter_compressed(AIOHTTP, receiver, encoder)
    enter_uncompressed(AIOHTTP, receiver, answerer)


for _name, _enter, _modules in (
    (
        WEBSOCKETS,
        enter_websockets,
        "server client protocol frames extensions.permessage_deflate uri",
    ),
    (WSPROTO, enter_wsproto, "connection events extensions"),
    (AIOHTTP, enter_aiohttp, "_websocket.reader _websocket.writer"),
):
    _loaded = load(_name, *(f"{_name}.{part}" for part in _modules.split()))
    if _loaded:
        _enter(*_loaded)
