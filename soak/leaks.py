"""A search for memory that the codec does not release: ``python -m soak.leaks``.

It repeats every operation a million times on both kernels, and prints the growth of the process.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

from tests.support.deflated import RFC_PAYLOADS, ended
from tests.support.memory import in_fresh_process, status
from tests.support.vectors import RFC_ACCEPT, RFC_KEY, by_hand
from wsframe import (
    Connection,
    Failure,
    HandshakeError,
    PerMessageDeflate,
    RequestDecoder,
    Role,
    StateError,
    UpgradeRequest,
    _pure,
    accept,
    encode_frame,
    mask,
    mask_into,
)

KEY = b"\x12\x83\xf4\x65"
HELLO = RFC_PAYLOADS["one-block"][0]
LONG = bytes(range(256)) * 20
SETTINGS = (
    None,
    DEFLATE := PerMessageDeflate(min_size=0, memory_level=1),
    PerMessageDeflate(min_size=0, server_no_context_takeover=True, client_no_context_takeover=True),
)

# First bytes and payloads, and for some frames more arguments of ``by_hand``.
FRAMES = [
    (0x81, b"text"),
    (0x81, "téxt".encode()),
    (0x82, LONG),
    (0x89, b"ping"),
    (0x8A, b"pong"),
    (0x01, "téxt".encode()[:2]),
    (0x80, "téxt".encode()[2:]),
]
COMPRESSED_FRAMES = [
    (0xC1, HELLO),
    (0xC2, ended(LONG) + b"\0"),
    (0x41, HELLO[:3]),
    (0x00, b""),
    (0x80, HELLO[3:]),
]
Peculiar = tuple[int, bytes, dict[str, int]]
BEGINNINGS: list[Peculiar] = [
    (0x01, b"a fragment", {}),
    (0x01, "héllo".encode()[:2], {}),
    (0x02, b"a fragment" * 100, {}),
    (0x82, b"a part", {"length": 70_000}),
    (0x81, "ä pärt".encode(), {"length": 10_000}),
    (0x89, b"ping", {"length": 5}),
]
COMPRESSED_BEGINNINGS: list[Peculiar] = [
    (0x41, HELLO[:3], {}),
    (0x42, ended(LONG) + HELLO, {}),
    (0xC2, ended(LONG)[:-3], {"length": 20_000}),
]
FAULTS: list[Peculiar] = [
    (0xB1, b"x", {}),
    (0x83, b"x", {}),
    (0x80, b"x", {}),
    (0x81, b"x", {"length_form": 2}),
    (0x81, b"\xff", {}),
    (0x01, b"bad\xff", {}),
    (0x88, b"x", {}),
    (0x88, b"\x03\xe8\xff", {}),
    (0x82, b"", {"length": 2001}),
    (0xC1, b"\xff" * 20, {}),
    (0xC2, ended(bytes(10_000)), {}),
    (0xC2, ended(b"x") * 5, {}),
]
REQUEST = [
    ("Host", "a.example"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", RFC_KEY),
    ("Sec-WebSocket-Version", "13"),
    ("Origin", "http://a.example"),
    ("Sec-WebSocket-Protocol", "chat, superchat"),
    ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
]

# Each call does one operation of a kind; the number selects it.
Work = Callable[[int], object]
Wire = Callable[..., bytes]


def wires() -> list[tuple[Role, Wire]]:
    """Return each role with a function that encodes its peer's frames."""
    return [(Role.SERVER, partial(by_hand, masking_key=KEY)), (Role.CLIENT, by_hand)]


def receiving() -> Work:
    """Receive frames of every kind, each in two reads."""
    steps = []
    for (role, wire), deflate in product(wires(), SETTINGS):
        frames = [wire(first, payload) for first, payload in FRAMES]
        if deflate is not None:
            frames += [wire(first, payload) for first, payload in COMPRESSED_FRAMES]
        connection = Connection(role, deflate=deflate)
        steps += [(connection, frame) for frame in frames]

    def receive(number: int) -> None:
        connection, frame = steps[number % len(steps)]
        cut = number % len(frame)
        connection.receive(bytearray(frame[:cut]))
        connection.receive(frame[cut:])

    return receive


def sending() -> Work:
    """Send messages, compressed and not, and control frames."""
    for byte in range(256):  # the pure kernels keep a table for each value of a key's byte
        mask(LONG, bytes([byte]) * 4)
    steps: list[Callable[[int], object]] = []
    for role, deflate in product(Role, SETTINGS):
        end = Connection(role, deflate=deflate)
        steps += [
            lambda number, end=end: end.encode(f"{number}"),  # type: ignore[misc]
            lambda number, end=end: end.encode(f"ünïcödé {number}"),  # type: ignore[misc]
            lambda number, end=end: end.encode(bytearray(number % 300)),  # type: ignore[misc]
            lambda _, end=end: end.encode(memoryview(LONG)),  # type: ignore[misc]
            lambda number, end=end: end.ping(b"%d" % number),  # type: ignore[misc]
            lambda number, end=end: end.pong(bytearray(b"%d" % number)),  # type: ignore[misc]
        ]
    return lambda number: steps[number % len(steps)](number)


def misusing() -> Work:
    """Pass invalid arguments to the encoder, the masking functions and the receiver."""
    end = Connection(Role.CLIENT)
    end.close()
    steps: list[Callable[[Any], object]] = [
        lambda number: encode_frame(16 + number),
        lambda number: encode_frame(9, bytes(126 + number % 9)),
        lambda number: encode_frame(1, f"\ud800{number}"),
        lambda number: encode_frame(1, number),
        lambda number: encode_frame(1, b"x", masking_key=b"%d" % (number + 10_000)),
        lambda number: mask(b"x", b"%d" % (number + 10_000)),
        lambda number: mask_into(b"%d" % number, KEY),
        lambda number: end.encode(f"{number}"),
        lambda number: end.close(1000, f"{number}"),
        lambda number: end.receive(f"{number}"),  # type: ignore[arg-type]
    ]

    def misuse(number: int) -> None:
        try:
            steps[number % len(steps)](number)
        except (ValueError, TypeError, StateError):
            return
        raise AssertionError(f"step {number % len(steps)} raised no error")

    return misuse


def failing() -> Work:
    """Receive frames that fail the connection, and close it."""
    steps = [
        (role, deflate, wire(first, payload, **how))
        for (role, wire), deflate in product(wires(), SETTINGS)
        for first, payload, how in FAULTS
    ]

    def fail(number: int) -> None:
        role, deflate, data = steps[number % len(steps)]
        connection = Connection(role, max_message_size=2000, max_fragments=3, deflate=deflate)
        event = connection.receive(data)[-1]
        assert isinstance(event, Failure)
        connection.close(event.code, event.reason)
        connection.receive(data)

    return fail


def dropping() -> Work:
    """Drop connections within a frame or a message."""
    steps = []
    for (role, wire), deflate in product(wires(), SETTINGS):
        plain = [wire(first, payload, **how) for first, payload, how in BEGINNINGS]
        steps += [(role, deflate, data) for data in [*plain, wire(0x82, LONG)[:3]]]
        if deflate is not None:
            for first, payload, how in COMPRESSED_BEGINNINGS:
                steps.append((role, deflate, wire(first, payload, **how)))

    def drop(number: int) -> None:
        role, deflate, data = steps[number % len(steps)]
        connection = Connection(role, deflate=deflate)
        connection.encode("x")
        connection.receive(data[: number % len(data)])
        connection.receive(data[number % len(data) :])

    return drop


def closing() -> Work:
    """Close connections with a complete closing handshake."""

    def close(number: int) -> None:
        server, client = (Connection(role, deflate=SETTINGS[number % 3]) for role in Role)
        server.receive(client.close(4000, f"{number}"))
        client.receive(server.close(4000))

    return close


def accepting() -> Work:
    """Accept upgrade requests, valid and invalid."""

    def judge(number: int) -> None:
        if number % 2:
            accept(REQUEST, subprotocols=["superchat"], deflate=DEFLATE).encode()
        else:
            with suppress(HandshakeError):
                accept(REQUEST[: number % 6], origins=[])

    return judge


def connecting() -> Work:
    """Create upgrade requests, and confirm their answers, valid and invalid."""

    def ask(number: int) -> None:
        request = UpgradeRequest("a.example", f"/{number}", deflate=DEFLATE, headers={"X": "y"})
        lines = request.encode().decode().split("\r\n")[1:-2]
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        answer = accept(headers, deflate=DEFLATE)
        if number % 2:
            request.confirm(101, answer.headers)
        else:
            with suppress(HandshakeError):
                request.confirm(101, [*answer.headers[1:], ("Sec-WebSocket-Accept", RFC_ACCEPT)])

    return ask


def reading() -> Work:
    """Read requests from their first byte, in two pieces, valid and malformed."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in REQUEST)
    wires = [f"GET / HTTP/1.1\r\n{fields}\r\n".encode(), b"GET /\r\n", b"\x16\x03", b"a" * 3000]
    wires += [wires[0].replace(b"Host", b"Ho st"), wires[0].replace(b"GET", b"POST")]

    def read(number: int) -> None:
        wire = wires[number % len(wires)]
        decoder = RequestDecoder(max_head_size=2000)
        cut = number % len(wire)
        try:
            head = decoder.receive(wire[:cut]) or decoder.receive(wire[cut:])
            if head is not None:
                head.accept(headers=[(b"X-Number", b"%d" % number)]).encode()
        except HandshakeError as error:
            error.encode()

    return read


def parting() -> Work:
    """Send messages in parts, and receive them in parts."""
    pairs = [
        [Connection(role, deflate=deflate) for role in roles]
        for roles in ((Role.SERVER, Role.CLIENT), (Role.CLIENT, Role.SERVER))
        for deflate in SETTINGS
    ]

    def part(number: int) -> None:
        sender, receiver = pairs[number % len(pairs)]
        for wire in sender.encode_parts([f"pärt {number}", "", "x" * (number % 300)]):
            receiver.receive_parts(wire)

    return part


KINDS: dict[str, Callable[[], Work]] = {
    "frames received": receiving,
    "frames sent": sending,
    "misuse": misusing,
    "failures": failing,
    "connections dropped": dropping,
    "connections closed": closing,
    "requests accepted": accepting,
    "requests made": connecting,
    "requests read": reading,
    "parts": parting,
}


def traced(kind: str, count: int) -> int:
    """Return the growth of Python's allocations between two equal batches, in bytes."""
    work = KINDS[kind]()
    tracemalloc.start()
    sizes = []
    for _ in range(3):
        for number in range(count):
            work(number)
        gc.collect()
        _pure._keys.clear()  # the stock of masking keys, whose size varies
        sizes.append(tracemalloc.get_traced_memory()[0])
    return sizes[2] - sizes[1]


def resident(kind: str, count: int) -> int:
    """Return the growth of the process in bytes, after a warm-up of a tenth of the count."""
    work = KINDS[kind]()
    sizes = []
    for times in (count // 10, count):
        for number in range(times):
            work(number)
        gc.collect()
        sizes.append(status(Path("/proc/self"), "VmRSS"))
    return sizes[1] - sizes[0]


def main() -> int:
    """Return the exit status: 1 if an operation leaks a byte or more each time."""
    parser = argparse.ArgumentParser(prog="python -m soak.leaks", description=__doc__)
    parser.add_argument(
        "--count", type=int, default=1_000_000, help="repetitions of each kind (%(default)s)"
    )
    count = parser.parse_args().count
    leaks = 0
    for kind, pure in product(KINDS, (False, True)):
        growth = in_fresh_process(pure, resident, kind, count)
        leaks += growth >= count
        sys.stdout.write(
            f"{kind:20} {'pure' if pure else 'compiled':9} {count:,} times: {growth >> 10:+} KiB\n"
        )
        sys.stdout.flush()
    return 1 if leaks else 0


if __name__ == "__main__":
    # Import the module by its name, by which other processes can unpickle its functions.
    sys.exit(import_module("soak.leaks").main())
