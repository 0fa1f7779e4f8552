"""TLS: the same server to clients that speak it, and no harm from those that do not."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Queue, SimpleQueue
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from websockets.sync.client import connect

import wsframe.client
from tests.server.conftest import Clients, Serve, resets_under_tls, wait_until
from tests.support.certificates import Certificates
from tests.support.clients import TIMEOUT, Client, get, masked, parse_answer, upgrade
from tests.support.handlers import BOTH_KINDS, Waits, generator_echo, plain_echo, websocket_app
from tests.support.tools import missing_tool
from wsframe import ConnectionClosed, Opcode, Pong
from wsframe.server import App, EventStream, Server, Settings, WebSocket
from wsframe.server.sockets.certificate import CertificateError, tls_context

pytestmark = resets_under_tls

MIB = 1 << 20
MUCH = 32 * MIB  # more than the kernel's own buffers hold of a connection
VERSIONS = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)


@pytest.fixture
def files(tmp_path: Path, certificates: Certificates) -> Path:
    """A directory with certificates in it."""
    certificates.write(tmp_path)
    return tmp_path


def paths(directory: Path, names: dict[str, str]) -> dict[str, Any]:
    return {option: directory / name for option, name in names.items()}


def client_of(certificates: Certificates, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    return context


def nobody_is_there(server: Server) -> bool:
    return not any(clients.peers for clients in server.clients)


# Options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"cert": "cert.pem", "key": "key.pem"}, {"cert": "both.pem"}],
    ids=["two files", "one file"],
)
@VERSIONS
def test_a_certificate_makes_the_server_speak_tls(
    files: Path, certificates: Certificates, options: dict[str, str], version: ssl.TLSVersion
) -> None:
    app = websocket_app(generator_echo)
    with app.start("127.0.0.1", **paths(files, options)) as server:
        assert server.url == f"https://127.0.0.1:{server.port}"
        context = client_of(certificates, version)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with connect(f"wss://127.0.0.1:{server.port}/echo", ssl=context) as client:
            client.send("hello")
            assert client.recv(TIMEOUT) == "hello"
            assert isinstance(client.socket, ssl.SSLSocket)
            assert client.socket.version() == version.name.replace("_", ".")
            assert client.socket.selected_alpn_protocol() == "http/1.1"


def test_a_context_may_be_given_instead(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(websocket_app(generator_echo), ssl_context=certificates.server)
    assert server.url.startswith("https:")
    client = clients.websocket(server, "/echo", tls=certificates.client)
    client.say("hello")
    assert client.next_event() == "hello"
    client.leave()


def test_no_version_is_spoken_that_is_not_safe(files: Path) -> None:
    context = tls_context(Settings(cert=files / "both.pem"))
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"cert": "missing.pem"}, FileNotFoundError, "'.*missing.pem'"),
        ({"cert": "cert.pem", "key": "missing.pem"}, FileNotFoundError, "'.*missing.pem'"),
        ({"cert": "."}, OSError, "directory"),
        ({"cert": "cert.pem"}, CertificateError, "cert.pem holds no private key"),
        ({"cert": "cert.pem", "key": "ca.pem"}, CertificateError, "ca.pem holds no private key"),
        ({"cert": "key.pem"}, CertificateError, "key.pem holds no certificate"),
        ({"cert": "cert.pem", "key": "empty.pem"}, CertificateError, "empty.pem holds no private"),
        ({"cert": "empty.pem", "key": "key.pem"}, CertificateError, "empty.pem holds no cert"),
        (
            {"cert": "junk.pem", "key": "key.pem"},
            CertificateError,
            "junk.pem and .* cannot be used",
        ),
        (
            {"cert": "cert.pem", "key": "other.pem"},
            CertificateError,
            "the key in .*other.pem does not belong to the certificate in .*cert.pem",
        ),
        ({"cert": "cert.pem", "key": "locked.pem"}, CertificateError, "locked.pem is encrypted"),
        ({"cert": "cert.pem", "key": "old.pem"}, CertificateError, "old.pem is encrypted"),
        ({"cert": "locked-both.pem"}, CertificateError, "locked-both.pem is encrypted"),
        ({"key": "key.pem"}, ValueError, "a key needs a cert"),
    ],
)
def test_a_certificate_that_cannot_work_is_refused_and_its_file_is_named(
    files: Path, options: dict[str, str], error: type[Exception], message: str
) -> None:
    key = load_pem_private_key((files / "key.pem").read_bytes(), None)
    for name, form in (("locked", PrivateFormat.PKCS8), ("old", PrivateFormat.TraditionalOpenSSL)):
        locked = key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))
        (files / f"{name}.pem").write_bytes(locked)
    both = (files / "cert.pem").read_bytes() + (files / "locked.pem").read_bytes()
    (files / "locked-both.pem").write_bytes(both)
    other = trustme.CA().issue_cert("localhost").private_key_pem
    other.write_to_path(files / "other.pem")
    (files / "empty.pem").touch()
    junk = "-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n"
    (files / "junk.pem").write_text(junk, encoding="ascii")
    with pytest.raises(error, match=message):
        App().start("127.0.0.1", **paths(files, options))


def test_a_context_has_a_certificate_already(files: Path, certificates: Certificates) -> None:
    with pytest.raises(ValueError, match="has a cert already"):
        App().start(cert=files / "both.pem", ssl_context=certificates.server)


# What is spoken ----------------------------------------------------------------------------------


@BOTH_KINDS
@VERSIONS
def test_messages_come_back(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    echo: Callable[..., Any],
    version: ssl.TLSVersion,
) -> None:
    server = serve(
        websocket_app(echo, max_message_size=MUCH), ssl_context=certificates.server, loops=2
    )
    client = clients.websocket(server, "/echo", tls=client_of(certificates, version))
    messages: list[str | bytes] = ["", "hello", b"\x00\xff", "é" * 50_000, os.urandom(MIB)]
    for message in messages:
        client.say(message)
        assert client.next_event() == message
    client.say(*messages)
    assert client.hear(len(messages)) == messages
    client.send(masked(Opcode.PING, b"there?"))
    assert client.next_event() == Pong(b"there?")
    assert client.leave().code == 1000


@BOTH_KINDS
@VERSIONS
def test_large_messages_pass_each_other(
    serve: Serve, certificates: Certificates, echo: Callable[..., Any], version: ssl.TLSVersion
) -> None:
    server = serve(websocket_app(echo, max_message_size=MUCH), ssl_context=certificates.server)
    messages = [os.urandom(8 * MIB) for _ in range(4)]

    def send_all() -> None:
        for message in messages:
            client.send(message)

    with wsframe.client.connect(
        f"wss://127.0.0.1:{server.port}/echo",
        ssl=client_of(certificates, version),
        max_message_size=MUCH,
    ) as client:
        sending = threading.Thread(target=send_all)
        sending.start()
        for message in messages:
            assert client.receive(TIMEOUT) == message
        sending.join(TIMEOUT)


@VERSIONS
def test_a_stream_is_fed(
    serve: Serve, clients: Clients, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    app, ticks = App(), Queue[str]()
    app.sse("/time", source=ticks)

    @app.sse("/job")
    def job(stream: EventStream) -> Any:
        yield from map(str, range(1000))

    server = serve(app, ssl_context=certificates.server)
    tls = client_of(certificates, version)
    stream, job_stream = (clients.stream(server, path, tls=tls) for path in ("/time", "/job"))
    for number in range(1000):
        ticks.put(str(number))
    assert stream.hear(1000) == list(map(str, range(1000)))
    assert job_stream.hear(1000) == list(map(str, range(1000)))
    job_stream.expect_end()


@VERSIONS
def test_a_slow_reader_holds_up_nobody_and_gets_all_of_it(
    serve: Serve, clients: Clients, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    messages = [bytes([number]) * MIB for number in range(MUCH // MIB)]
    app = websocket_app(generator_echo)

    @app.websocket("/plain")
    def plain(ws: WebSocket) -> None:
        for message in messages:
            ws.send(message)

    server = serve(app, ssl_context=certificates.server)
    tls = client_of(certificates, version)
    slow = clients.websocket(server, "/plain", tls=tls, receive_buffer=1 << 16)
    other = clients.websocket(server, "/echo", tls=tls)
    for number in range(100):
        other.say(str(number))
        assert other.next_event() == str(number)
    assert slow.hear(len(messages)) == messages
    assert slow.closed_by_server().code == 1000


def test_a_client_that_never_reads_is_not_read_and_loses_nothing(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(
        websocket_app(generator_echo, max_message_size=MUCH), ssl_context=certificates.server
    )
    client = clients.websocket(server, "/echo", tls=certificates.client, receive_buffer=1 << 16)
    # One owner a socket: the sending ends before the reading begins.
    message = bytes(MIB)
    frame = memoryview(client.codec.encode(message))
    client.sock.settimeout(0.3)
    sent = 0
    with suppress(TimeoutError):
        while sent < 4 * MUCH:
            sent += client.sock.send(frame[sent % len(frame) :][:16384])
    assert sent < 4 * MUCH
    client.sock.settimeout(TIMEOUT)
    for _ in range(sent // len(frame)):
        assert client.next_event() == message


# Many small messages in one record; each has six bytes of head and mask.
SMALL = [f"{number:044}" for number in range(16384 // 50)]
OFFER = ("Sec-WebSocket-Extensions", "permessage-deflate")


@BOTH_KINDS
def test_what_is_left_of_a_record_is_read(
    serve: Serve, clients: Clients, certificates: Certificates, echo: Callable[..., Any]
) -> None:
    # A connection that may compress is read by less than a record has.
    server = serve(websocket_app(echo, deflate=True), ssl_context=certificates.server)
    client = clients.websocket(server, "/echo", OFFER, tls=certificates.client)
    for _ in range(3):
        client.say(*SMALL)
        assert client.hear(len(SMALL)) == SMALL


def test_what_is_left_of_a_record_is_read_when_there_is_room(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    go = threading.Event()

    def late(ws: WebSocket) -> None:
        go.wait(TIMEOUT)
        plain_echo(ws)

    server = serve(websocket_app(late, deflate=True), ssl_context=certificates.server)
    client = clients.websocket(server, "/echo", OFFER, tls=certificates.client)
    frame = masked(Opcode.BINARY, b"x")
    count = 4 * 16384 // len(frame)
    client.send(frame * count)  # more than waits for a handler, by half of the last record
    (peer,) = server.clients[0].peers
    wait_until(lambda: not peer._reading, "it is read all the same")
    go.set()
    assert client.hear(count) == [b"x"] * count


# The handshake -----------------------------------------------------------------------------------


class Handshake:
    """The client's side of a TLS handshake, by hand, over a socket without TLS."""

    def __init__(self, client: Client, context: ssl.SSLContext) -> None:
        self._client = client
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="127.0.0.1")

    def flights(self) -> Any:
        """What to send, one flight after the other; the answer to each is read in between."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                yield self._outgoing.read()
                self._incoming.write(self._client.receive())
            else:
                yield self._outgoing.read()
                return

    def ask(self, request: bytes) -> bytes:
        """Send a request, and read all of the answer."""
        self.tls.write(request)
        self._client.send(self._outgoing.read())
        answer = b""
        while True:
            try:
                data = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self._incoming.write(self._client.receive())
                continue
            except ssl.SSLZeroReturnError:
                return answer
            if not data:
                return answer
            answer += data


def page_app() -> App:
    app = websocket_app(generator_echo)
    app.page("/", "hello")
    return app


@VERSIONS
def test_a_handshake_may_come_a_byte_at_a_time_and_holds_up_nobody(
    serve: Serve, clients: Clients, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    other = clients.websocket(server, "/echo", tls=certificates.client)
    client = clients.connect(server)
    handshake = Handshake(client, client_of(certificates, version))
    for flight in handshake.flights():
        client.send_bytewise(flight[:-1])
        other.say("still there?")
        assert other.next_event() == "still there?"
        client.send(flight[-1:])
    assert parse_answer(handshake.ask(get("/"))).body == b"hello"


@pytest.mark.parametrize("share", [0, 1, 50, 100], ids="{}%".format)
def test_a_handshake_that_does_not_come_in_time_is_waited_for_no_longer(
    serve: Serve, clients: Clients, certificates: Certificates, share: int
) -> None:
    server = serve(page_app(), ssl_context=certificates.server, handshake_timeout=0.3)
    client = clients.connect(server)
    if share:
        hello = next(Handshake(client, certificates.client).flights())
        client.send(hello[: max(1, len(hello) * share // 100)])
    client.read_to_end()
    late = clients.connect(server, tls=certificates.client)
    # A client without a request gets no answer. CPython 3.11.2 sets OP_IGNORE_UNEXPECTED_EOF, so
    # the end of the connection is b"" there; later versions raise.
    with suppress(ssl.SSLEOFError):
        assert late.receive() == b""
    client = clients.connect(server, tls=certificates.client)
    client.send(get("/"))
    assert client.answer().body == b"hello"


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])
@VERSIONS
def test_a_handshake_may_break_off_anywhere(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    version: ssl.TLSVersion,
    leave: Callable[[Client], None],
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    context = client_of(certificates, version)
    whole = 0
    cut = 0
    while cut <= whole:
        client = clients.connect(server)
        handshake = Handshake(client, context)
        whole = 0
        for flight in handshake.flights():
            client.send(flight[: max(0, cut - whole)])
            whole += len(flight)
            if cut <= whole:
                break
        leave(client)
        wait_until(partial(nobody_is_there, server), "a connection is left behind")
        cut += 97
    client = clients.connect(server, tls=certificates.client)
    client.send(get("/"))
    assert client.answer().body == b"hello"


def test_a_client_may_be_gone_before_it_is_greeted(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    for _ in range(200):
        clients.connect(server).reset()
    client = clients.connect(server, tls=certificates.client)
    client.send(get("/"))
    assert client.answer().body == b"hello"
    wait_until(partial(nobody_is_there, server), "a connection is left behind")


def test_plain_http_is_told_so(serve: Serve, clients: Clients, certificates: Certificates) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    for request in (get("/"), upgrade("/echo"), get("/", method="POST")):
        client = clients.connect(server)
        client.send(request)
        answer = client.answer()
        assert (answer.status, answer.body) == (400, b"this server requires TLS: use https\n")
    wait_until(partial(nobody_is_there, server), "a connection is left behind")


@pytest.mark.parametrize("garbage", [b"\0" * 100, b"SSH-2.0-x\r\n", os.urandom(8) * 2000])
def test_what_is_no_tls_is_cut_off(
    serve: Serve, clients: Clients, certificates: Certificates, garbage: bytes
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    client = clients.connect(server)
    client.send(garbage)
    wait_until(partial(nobody_is_there, server), "a connection is left behind")


def test_a_client_that_does_not_trust_the_certificate_leaves(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    with pytest.raises(ssl.SSLCertVerificationError):
        clients.connect(server, tls=ssl.create_default_context())
    wait_until(partial(nobody_is_there, server), "a connection is left behind")


# The end -----------------------------------------------------------------------------------------


def test_the_servers_end_is_told_by_tls(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(page_app(), ssl_context=certificates.server)
    client = clients.connect(server, tls=certificates.client)
    client.send(get("/"))
    assert client.answer().body == b"hello"  # an end that is not told would be an error
    client = clients.websocket(server, "/echo", tls=certificates.client)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert client.closed_by_server().code == 1001
    stopping.join(TIMEOUT)


def unwrap(client: Client) -> None:
    """Tell by TLS that nothing more comes, and see the server do so."""
    assert isinstance(client.sock, ssl.SSLSocket)
    client.sock = client.sock.unwrap()


@pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close, unwrap])
@BOTH_KINDS
def test_a_client_that_leaves_without_a_word_has_left(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    echo: Callable[..., Any],
    leave: Callable[[Client], None],
) -> None:
    ends: SimpleQueue[int | None] = SimpleQueue()

    def plain(ws: WebSocket) -> None:
        plain_echo(ws)
        ends.put(ws.close_code)

    def generator(ws: WebSocket) -> Waits:
        try:
            yield from generator_echo(ws)
        except ConnectionClosed as end:
            ends.put(end.code)

    app = websocket_app(plain if echo is plain_echo else generator)
    server = serve(app, ssl_context=certificates.server)
    client = clients.websocket(server, "/echo", tls=certificates.client)
    client.say("hello")
    assert client.next_event() == "hello"
    leave(client)
    assert ends.get(timeout=TIMEOUT) == 1006


# What TLS says on its own ------------------------------------------------------------------------


class ReadsWhenWritable(ssl.SSLSocket):
    """A socket whose reads wait until it can send."""

    held: bytes | None = None

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        if self.held is None:
            self.held = bytes(buffer[: super().recv_into(buffer, nbytes, flags)])
            raise ssl.SSLWantWriteError
        held, self.held = self.held, None
        buffer[: len(held)] = held
        return len(held)


class SendsWhenReadable(ReadsWhenWritable):
    """A socket whose sends wait until something comes, too, and mostly some more."""

    sends = 0
    begun: bytes | None = None

    def send(self, data: Any, flags: int = 0) -> int:
        assert self.begun in (None, bytes(data)), "another record than the one that was begun"
        self.sends += 1
        if self.sends % 6:
            self.begun = bytes(data)
            raise ssl.SSLWantReadError
        self.begun = None
        return super().send(data, flags)


def context_of(certificates: Certificates, kind: type[ssl.SSLSocket]) -> ssl.SSLContext:
    """A server's context, which makes such sockets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.configure(context)
    context.sslsocket_class = kind
    return context


def test_a_read_may_wait_until_it_can_send(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    context = context_of(certificates, ReadsWhenWritable)
    server = serve(websocket_app(generator_echo), ssl_context=context)
    client = clients.websocket(server, "/echo", tls=certificates.client)
    for number in range(20):
        client.say(str(number))
        assert client.next_event() == str(number)
    assert client.leave().code == 1000


def test_a_send_may_wait_until_something_comes(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    context = context_of(certificates, SendsWhenReadable)
    server = serve(websocket_app(generator_echo), ssl_context=context)
    client = clients.connect(server, tls=certificates.client)
    client.send(upgrade("/echo"))
    client.sock.settimeout(0.05)
    received = b""
    for _ in range(100):
        client.send(masked(Opcode.TEXT, "x"))  # which lets go out what waits
        with suppress(TimeoutError):
            received += client.receive()
        if b"\x81\x01x" * 5 in received:
            break
    else:
        pytest.fail(f"only {received!r} came")


class SaysGoodbyeLate(ssl.SSLSocket):
    """A socket that has no room for a goodbye at first."""

    asked = 0

    def unwrap(self) -> Any:
        self.asked += 1
        if self.asked < 3:
            raise ssl.SSLWantWriteError
        return super().unwrap()


def test_a_goodbye_may_have_to_wait(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(page_app(), ssl_context=context_of(certificates, SaysGoodbyeLate))
    client = clients.connect(server, tls=certificates.client)
    client.send(get("/"))
    assert client.answer().body == b"hello"  # an end that is not told would be an error


def test_who_waits_for_the_client_does_not_spin(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    class Counting(ssl.SSLSocket):
        """A socket that says how often it is asked for what it cannot do."""

        handshakes, sends, deaf = 0, 0, True

        def do_handshake(self, block: bool = False) -> None:
            Counting.handshakes += 1
            super().do_handshake(block)

        def send(self, data: Any, flags: int = 0) -> int:
            if Counting.deaf and b"deaf" in bytes(data):
                Counting.sends += 1
                raise ssl.SSLWantReadError
            return super().send(data, flags)

    server = serve(websocket_app(generator_echo), ssl_context=context_of(certificates, Counting))
    deaf, other = (clients.websocket(server, "/echo", tls=certificates.client) for _ in range(2))
    Counting.handshakes = 0
    silent = clients.connect(server)
    silent.send(b"\x16")
    deaf.say("deaf")
    for number in range(200):
        other.say(str(number))
        assert other.next_event() == str(number)
    assert 1 <= Counting.handshakes <= 2  # once it was accepted, and once its byte was there
    assert 1 <= Counting.sends <= 3
    Counting.deaf = False
    deaf.say("now")
    assert deaf.hear(2) == ["deaf", "now"]


def test_a_change_of_keys_is_answered(serve: Serve, certificates: Certificates) -> None:
    program = shutil.which("openssl")
    if program is None:
        missing_tool("openssl")
    server = serve(page_app(), ssl_context=certificates.server)
    command = [program, "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_3", "-crlf"]
    talk = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert talk.stdin is not None
    assert talk.stdout is not None
    try:
        # By itself: of lines that are read together, only the first may be a command.
        talk.stdin.write(b"K\n")
        talk.stdin.flush()
        while b"KEYUPDATE" not in (said := talk.stdout.readline()):
            assert said
        talk.stdin.write(b"GET / HTTP/1.1\nHost: localhost\n\n")
        talk.stdin.flush()
        output = talk.stdout.read()
    finally:
        talk.kill()
        talk.communicate(timeout=TIMEOUT)
    assert b"200 OK" in output
    assert b"hello" in output
