"""The checks of a server; each raises an error if a byte is wrong, missing or superfluous."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TypeAlias

from wsframe.client import connect

from .data import content
from .exchanges import (
    expect_closing_handshake,
    expect_echo,
    expect_numbers,
    expect_page,
    publish,
    websocket,
)
from .form import Form
from .kinds import Kind
from .lifetime import pages_beside_connections, released, reload, restart, termination
from .running import Running
from .wire import (
    TIMEOUT,
    UPGRADE,
    Stream,
    WrongError,
    echo,
    message,
    request,
    upgrade,
)

KIB = 1 << 10
# The bytes of an unread body that are read before a connection is taken over.
DRAINED = 64 * KIB

Check: TypeAlias = Callable[[Running, Form], None]


# Pages and WebSockets ----------------------------------------------------------------------------


def pages(server: Running, form: Form) -> None:
    """Pages of several sizes, and a request with a body."""
    for number in (0, 1, 1000, 100_000):
        with server.connect() as wire:
            expect_page(wire, number)
    with server.connect() as wire:
        wire.send(request("/body", method="POST", body=content(100_000)))
        wire.expect_page(content(100_000))


def lasting_echo(server: Running, form: Form) -> None:
    """Echoes for a time, a silence, and another echo, by the client of wsframe."""
    address = server.address
    scheme = "ws" if address.tls is None else "wss"
    with connect(f"{scheme}://127.0.0.1:{address.port}/echo", ssl=address.tls) as ws:
        end = monotonic() + form.seconds
        number = 0
        while monotonic() < end:
            payload = content(number % 5000)
            ws.send(payload)
            if ws.receive(timeout=TIMEOUT) != payload:
                raise WrongError(f"a wrong echo of {payload[:80]!r}")
            number += 1
        try:
            raise WrongError(f"{ws.receive(timeout=form.silence)!r} was not sent")
        except TimeoutError:
            ws.send("still open")
        if ws.receive(timeout=TIMEOUT) != "still open":
            raise WrongError("a wrong echo after the silence")


def plain_function(server: Running, form: Form) -> None:
    """A handler that is a plain function."""
    with websocket(server, "/plain") as wire:
        expect_echo(wire, "text", content(1000), "", content(100_000))
        expect_closing_handshake(wire)


def closing_handshake(server: Running, form: Form) -> None:
    """The closing handshake, without messages and after some."""
    for payloads in ((), ("a", "b" * 70_000)):
        with websocket(server) as wire:
            expect_echo(wire, *payloads)
            expect_closing_handshake(wire)


def frames_behind_the_response(server: Running, form: Form) -> None:
    """Frames that are sent as soon as the response has been received."""
    payloads = [f"message {number}" for number in range(20)]
    with websocket(server) as wire:
        for payload in payloads:
            wire.send(message(payload))
        wire.expect(b"".join(map(echo, payloads)))
        expect_closing_handshake(wire)


def frames_behind_the_request(server: Running, form: Form) -> None:
    """Frames that are sent before the response, each in a segment of its own."""
    payloads = [f"message {number}" for number in range(20)]
    for target in ("/echo", "/plain"):
        with server.connect() as wire:
            wire.send(upgrade(target))
            for payload in payloads:
                wire.send(message(payload))
            wire.expect_upgrade()
            wire.expect(b"".join(map(echo, payloads)))
            expect_closing_handshake(wire)


def frames_within_the_request(server: Running, form: Form) -> None:
    """Frames in the segment of the request: complete, incomplete, and 20 KiB."""
    for target in ("/echo", "/plain"):
        for payload in ("small", content(20 * KIB)):
            frame = message(payload)
            for cut in (len(frame), len(frame) - 3, 1):
                with server.connect() as wire:
                    wire.send(upgrade(target) + frame[:cut])
                    wire.expect_upgrade()
                    wire.send(frame[cut:])
                    wire.expect(echo(payload))
                    expect_closing_handshake(wire)


# Event streams -----------------------------------------------------------------------------------


def stream_of_a_handler(server: Running, form: Form) -> None:
    """An event stream from a handler, which ends."""
    with server.connect() as wire:
        wire.send(request("/count?number=500"))
        expect_numbers(wire, 500)


def stream_of_a_topic(server: Running, form: Form) -> None:
    """An event stream from a topic, to which other requests publish."""
    with server.connect() as wire:
        wire.send(request("/topic?name=checked"))
        stream = Stream(wire)
        stream.wait_for_position()
        for event in ("one", "two\nlines", "x" * 50_000):
            publish(server, "checked", event)
            stream.expect(event)


def response_to_a_post(server: Running, form: Form) -> None:
    """A request with a body whose response is an event stream."""
    for text in ("some words of a model", " ".join(map(str, range(2000)))):
        with server.connect() as wire:
            wire.send(request("/words", method="POST", body=text.encode()))
            stream = Stream(wire)
            stream.expect(*text.split())
            stream.expect_end()


def unread_body(server: Running, form: Form) -> None:
    """A body that the application does not read, which contains requests."""
    hidden = request("/page?number=7")
    body = (hidden * (DRAINED // len(hidden) + 1))[:DRAINED]
    with server.connect() as wire:
        wire.send(request("/unread?number=3", method="POST", body=body))
        expect_numbers(wire, 3)
    with server.connect() as wire:
        wire.send(request("/unread?number=3", method="POST", body=body + body[: 16 * KIB]))
        if server.kind.ends_input:
            wire.expect_status(413)
        else:
            expect_numbers(wire, 3)


def body_of_an_upgrade(server: Running, form: Form) -> None:
    """The body of an upgrade request, which consists of frames."""
    frames = message("hidden")
    requests = [request("/echo", UPGRADE, body=frames)]
    if server.kind.understands_chunks:
        chunked = request("/echo", [*UPGRADE, ("Transfer-Encoding", "chunked")])
        requests.append(chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(frames), frames))
    for data in requests:
        with server.connect() as wire:
            wire.send(data)
            status, fields = wire.head()
            if status == 101:
                expect_echo(wire, "sent after the body")
                expect_closing_handshake(wire)
            elif status not in (400, 413):
                raise WrongError(f"{status} {b''.join(wire.body(fields))!r}")


# Several requests on a connection, and refusals --------------------------------------------------


def upgrade_after_pages(server: Running, form: Form) -> None:
    """A connection on which a WebSocket follows pages."""
    for target in ("/echo", "/plain"):
        with server.connect() as wire:
            expect_page(wire, 1000)
            expect_page(wire, 10)
            wire.send(upgrade(target))
            wire.expect_upgrade()
            expect_echo(wire, "after pages")
            expect_closing_handshake(wire)


def stream_after_pages(server: Running, form: Form) -> None:
    """A connection on which an event stream follows pages."""
    with server.connect() as wire:
        expect_page(wire, 1000)
        expect_page(wire, 10)
        wire.send(request("/count?number=10"))
        expect_numbers(wire, 10)


def pipelined_upgrade(server: Running, form: Form) -> None:
    """A request and an upgrade request with frames, all in one segment."""
    if not _answers_pipelined_pages(server):  # gunicorn gthread 21.2
        return
    for payload in ("small", content(20 * KIB)):
        with server.connect() as wire:
            wire.send(request("/page?number=1000") + upgrade("/echo") + message(payload))
            wire.expect_page(content(1000))
            wire.expect_upgrade()
            wire.expect(echo(payload))
            expect_closing_handshake(wire)


def _answers_pipelined_pages(server: Running) -> bool:
    """Return False if the server closes the connection after the first of two requests."""
    with server.connect() as wire:
        wire.send(request("/page?number=10") + request("/page?number=20"))
        wire.expect_page(content(10))
        try:
            wire.expect_page(content(20))
        except EOFError:
            return False
    return True


def refusals(server: Running, form: Form) -> None:
    """Refused requests, after which the connection can be used if the server keeps it."""
    refused = [
        (400, upgrade("/echo", without="Sec-WebSocket-Key")),
        (403, upgrade("/echo", ("Origin", "http://other.example"))),
        (403, upgrade("/forbidden")),
        (426, request("/echo")),
        (426, upgrade("/echo", ("Sec-WebSocket-Version", "12"), without="Sec-WebSocket-Version")),
    ]
    for status, data in refused:
        with server.connect() as wire:
            wire.send(data)
            fields = wire.expect_status(status).fields
            if status == 426 and fields.single("sec-websocket-version") != "13":
                raise WrongError("a 426 without the supported version")
            if server.kind.keeps_alive:
                expect_page(wire, 1000)


def checks(kind: Kind) -> list[Check]:
    """Return the checks for a server, in their order; the last ends it."""
    kept = [upgrade_after_pages, stream_after_pages]
    ahead = [frames_behind_the_request, frames_within_the_request]
    return [
        pages,
        lasting_echo,
        plain_function,
        closing_handshake,
        frames_behind_the_response,
        *(ahead if kind.takes_read_ahead else []),
        stream_of_a_handler,
        stream_of_a_topic,
        response_to_a_post,
        unread_body,
        body_of_an_upgrade,
        *(kept if kind.keeps_alive else []),
        *([pipelined_upgrade] if kind.keeps_alive and kind.takes_read_ahead else []),
        refusals,
        pages_beside_connections,
        released,
        *([reload] if kind.reloads else []),
        *([restart] if kind.restarts else []),
        termination,
    ]
