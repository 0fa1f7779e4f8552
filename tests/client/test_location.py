"""The parts of a URL, and their use in requests."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from tests.support.certificates import Certificates
from tests.support.scripted import Visit
from tests.support.tools import load_codec

from .conftest import Connect, Play, Resolve

pytestmark = pytest.mark.one_kernel


def close_at_once(visit: Visit) -> None:
    """Accept the WebSocket, and wait for the client to close."""
    visit.upgrade()
    visit.answer_close()


def has_ipv6() -> bool:
    """Return True if this machine has an IPv6 loopback address."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


# Hosts --------------------------------------------------------------------------------------------

HOSTS = [
    ("example.org", "example.org"),
    ("EXAMPLE.org", "example.org"),
    ("example.org.", "example.org."),
    ("ex%61mple.org", "example.org"),
    ("under_score.example", "under_score.example"),
    ("192.0.2.7", "192.0.2.7"),
    # As in a browser (WHATWG URL section 3.5).
    ("127.1", "127.0.0.1"),
    ("0x7F000001", "127.0.0.1"),
    ("2130706433", "127.0.0.1"),
    ("192.0.2.7.", "192.0.2.7"),
    ("\uff11\uff12\uff17.0.0.\uff11", "127.0.0.1"),
    # IDNA 2008 and UTS 46, not IDNA 2003.
    ("bücher.example", "xn--bcher-kva.example"),
    ("BÜCHER.example", "xn--bcher-kva.example"),
    ("b%C3%BCcher.example", "xn--bcher-kva.example"),
    ("bu\u0308cher.example", "xn--bcher-kva.example"),
    ("faß.de", "xn--fa-hia.de"),
    ("βόλος.com", "xn--nxasmm1c.com"),
    ("日本語。jp", "xn--wgv71a119e.jp"),
    ("xn--fa-hia.de", "xn--fa-hia.de"),
]


@pytest.mark.parametrize(("written", "host"), HOSTS)
def test_a_host_has_one_form_in_look_ups_and_requests(
    connect: Connect, play: Play, resolve: Resolve, written: str, host: str
) -> None:
    def script(visit: Visit) -> None:
        close_at_once(visit)
        assert visit.headers["Host"] == host

    names = resolve(play(script).port)
    connect(f"ws://{written}/").close()
    assert names == [(host, 80)]


@pytest.mark.parametrize(
    ("url", "host", "asked"),
    [
        ("ws://example.org", "example.org", ("example.org", 80)),
        ("ws://example.org:/", "example.org", ("example.org", 80)),
        ("ws://example.org:80/", "example.org", ("example.org", 80)),
        ("ws://example.org:443/", "example.org:443", ("example.org", 443)),
        ("WS://EXAMPLE.org:8080/", "example.org:8080", ("example.org", 8080)),
        ("ws://[2001:DB8:0::1]/", "[2001:db8::1]", ("2001:db8::1", 80)),
        ("ws://[fe80::1%eth0]/", "[fe80::1]", ("fe80::1%eth0", 80)),
        ("ws://[fe80::1%25eth0]:81/", "[fe80::1]:81", ("fe80::1%eth0", 81)),
        ("ws://[fe80::1%1]/", "[fe80::1]", ("fe80::1%1", 80)),
        ("ws://[fe80::1%251]/", "[fe80::1]", ("fe80::1%1", 80)),
        ("ws://[fe80::1%25]/", "[fe80::1]", ("fe80::1%25", 80)),
    ],
)
def test_the_host_header_has_no_zone_and_no_default_port(
    connect: Connect, play: Play, resolve: Resolve, url: str, host: str, asked: tuple[str, int]
) -> None:
    def script(visit: Visit) -> None:
        close_at_once(visit)
        assert visit.headers["Host"] == host

    names = resolve(play(script).port)
    connect(url).close()
    assert names == [asked]


@ipv6
@pytest.mark.skipif(sys.platform != "linux", reason="another system may know no such zone")
@pytest.mark.parametrize("zone", ["%1", "%251"])
@pytest.mark.parametrize("tls", [False, True])
def test_a_zone_is_used_to_connect_and_never_sent(
    connect: Connect, play: Play, certificates: Certificates, zone: str, tls: bool
) -> None:
    def script(visit: Visit) -> None:
        close_at_once(visit)
        assert visit.headers["Host"] == f"[::1]:{server.port}"

    server = play(script, host="::1", tls=certificates.server if tls else None)
    scheme = "wss" if tls else "ws"
    connect(f"{scheme}://[::1{zone}]:{server.port}/", ssl=certificates.client).close()


NAMES = [("localhost", "localhost"), ("localhost.", "localhost"), ("127.0.0.1", None)]


@pytest.mark.parametrize(("host", "name"), [*NAMES, pytest.param("[::1]", None, marks=ipv6)])
def test_the_tls_server_name_has_no_trailing_dot_and_is_no_address(
    connect: Connect,
    play: Play,
    resolve: Resolve,
    certificates: Certificates,
    host: str,
    name: str | None,
) -> None:
    def note(connection: object, name: str | None, context: object) -> None:
        names.append(name)

    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.configure(context)
    context.sni_callback = note
    resolve(play(close_at_once, tls=context).port)
    connect(f"wss://{host}/", ssl=certificates.client).close()
    assert names == [name]


@pytest.mark.parametrize(
    "host",
    [
        "",
        "[::1",
        "[::1]x",
        "[]",
        "[v1.x]",
        "[127.0.0.1]",
        "[fe80::1%]",
        "[fe80::1%25%00]",
        "[fe80::1%25en%30]",
        f"[fe80::1%{'x' * 17}]",
        "exam\u2100ple.org",
        "exam<ple.org",
        "example..org",
        ".example.org",
        "example.org..",
        "good.example\\@evil.example",
        "good.example%2F@evil.example\\",
        "exam%2Fple.org",
        "exam%00ple.org",
        "exam%FFple.org",
        f"{'x' * 64}.org",
        f"{'x.' * 127}x",
        f"{'ü.' * 127}x",
        "1.2.3.4.5",
        "256.256.256.256",
        "example.1",
        "\u0301a.example",
        "a\ufffdb.example",
        "-ü.example",
    ],
)
def test_an_invalid_host(connect: Connect, resolve: Resolve, host: str) -> None:
    names = resolve()
    with pytest.raises(ValueError, match=r"\w"):
        connect(f"ws://{host}/")
    assert names == []


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> Callable[[], ModuleType]:
    """Imports the package without the dependencies of the extra."""

    def load() -> ModuleType:
        for name in ("h11", "idna"):
            for module in [*sys.modules]:
                if module.partition(".")[0] == name:
                    monkeypatch.delitem(sys.modules, module)
            monkeypatch.setitem(sys.modules, name, None)
        return load_codec(pure=True)

    return load


def test_without_the_extra_an_error_names_it(
    without_the_extra: Callable[[], ModuleType], play: Play
) -> None:
    client = without_the_extra().client
    for connect in (client.connect, client.events):
        with pytest.raises(ImportError, match=r"pip install 'wsframe\[client\]'"):
            connect("ws://bücher.example/")
    client.connect(play(close_at_once).url()).close()


# The rest of a URL --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "headers", "sent"),
    [
        ("Aladdin:open%20sesame@", {}, ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]),
        ("%C3%BC@", {}, ["Basic w7w6"]),
        ("ü@", {}, ["Basic w7w6"]),
        ("%FF:%FE@", {}, ["Basic /zr+"]),
        (":secret@", {}, ["Basic OnNlY3JldA=="]),
        ("a@b:c:d@", {}, ["Basic YUBiOmM6ZA=="]),
        ("Aladdin:open%20sesame@", {"authorization": "Bearer x"}, ["Bearer x"]),
        ("@", {}, None),
        (":@", {}, None),
        ("", {}, None),
    ],
)
def test_the_user_and_the_password_of_the_url_are_sent(
    connect: Connect, play: Play, user: str, headers: dict[str, str], sent: list[str] | None
) -> None:
    def script(visit: Visit) -> None:
        close_at_once(visit)
        assert visit.headers.get_all("Authorization") == sent

    server = play(script)
    connect(f"ws://{user}127.0.0.1:{server.port}/", headers=headers).close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "//127.0.0.1/",
        "http://127.0.0.1/",
        "127.0.0.1:80",
        "ws:///path",
        "ws://:80/",
        "ws://127.0.0.1/#part",
        "ws://127.0.0.1/#",
        "ws://127.0.0.1/a b",
        "ws://127.0.0.1/\r\nX: y",
        "ws://127.0.0.1\t/",
        "ws://127.0.0.1/ü",
        "ws://127.0.0.1/?ü",
        "ws://127.0.0.1:65536/",
        "ws://127.0.0.1:-1/",
        "ws://127.0.0.1:+1/",
        "ws://127.0.0.1:1_0/",
        "ws://127.0.0.1:\u0661/",
        "ws://127.0.0.1:http/",
        "ws://a%3Ab:c@127.0.0.1/",
        "ws://a%0Ab@127.0.0.1/",
        "ws://a:b%00@127.0.0.1/",
    ],
)
def test_a_malformed_url(connect: Connect, resolve: Resolve, url: str) -> None:
    names = resolve()
    with pytest.raises(ValueError, match=r"\w"):
        connect(url)
    assert names == []


@pytest.mark.parametrize("name", ["%ff.example", "a%C0%AF", "%ED%A0%80.example"])
def test_a_host_that_is_not_utf_8_is_named_in_the_error(codec: ModuleType, name: str) -> None:
    with pytest.raises(ValueError, match=f"must be valid UTF-8.*{name}"):
        codec.client.connect(f"ws://{name}/")
