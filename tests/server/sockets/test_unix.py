"""Unix sockets: a file that exists while the server runs, and clients without an address."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import socket
import ssl
import stat
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import unix_connect

from tests.support.certificates import Certificates
from tests.support.clients import get, parse_response
from tests.support.handlers import BOTH_KINDS, generator_echo, websocket_app
from tests.support.inspection import wait_for_disconnects
from tests.support.processes import run
from tests.support.tools import missing_tool
from tests.support.waiting import TIMEOUT
from wsframe.server import App, WebSocket

grp = pytest.importorskip("grp")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path for a socket; such paths must be short."""
    monkeypatch.chdir(tmp_path)
    return Path("s")


def page_app() -> App:
    app = websocket_app(generator_echo)
    app.page("/", "hello")
    return app


def ask(path: Path, request: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.settimeout(TIMEOUT)
        sock.connect(str(path))
        if tls is not None:
            sock = stack.enter_context(tls.wrap_socket(sock, server_hostname="localhost"))
        sock.sendall(request)
        answer = b""
        while data := sock.recv(1 << 16):
            answer += data
        return answer


@BOTH_KINDS
def test_a_websocket_works_over_a_unix_socket(path: Path, echo: Callable[..., None]) -> None:
    with websocket_app(echo).start(unix=path) as server:
        assert server.url == f"http+unix://{quote(str(path.absolute()), safe='')}"
        assert (server.host, server.port) == ("", 0)
        with unix_connect(str(path), "ws://localhost/echo", max_size=None) as client:
            for message in ("hello", bytes(1 << 20)):
                client.send(message)
                assert client.recv(TIMEOUT) == message


def test_tls_works_over_a_unix_socket(path: Path, certificates: Certificates) -> None:
    with page_app().start(unix=path, ssl_context=certificates.server) as server:
        assert server.url.startswith("https+unix://")
        assert parse_response(ask(path, get("/"), certificates.client)).body == b"hello"


def test_the_client_of_a_unix_socket_is_named_by_its_path(path: Path) -> None:
    app = App()

    @app.websocket("/address")
    def address(ws: WebSocket) -> None:
        ws.send(repr(ws.request.address))

    with app.start(unix=path), unix_connect(str(path), "ws://localhost/address") as client:
        assert client.recv(TIMEOUT) == repr(str(path.absolute()))


def test_host_and_origin_are_checked_on_a_unix_socket(path: Path) -> None:
    with page_app().start(unix=path):
        assert parse_response(ask(path, b"GET / HTTP/1.1\r\n\r\n")).status == 400
        with pytest.raises(InvalidStatus, match="403"):
            unix_connect(str(path), "ws://localhost/echo", origin="https://example.com")
        with unix_connect(str(path), "ws://localhost/echo", origin="http://localhost"):
            pass


def test_the_file_is_removed_when_the_server_stops(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with page_app().start(unix=path):
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        monkeypatch.chdir("/")
    monkeypatch.undo()
    assert not path.exists()


def test_the_file_is_removed_when_the_start_fails(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        page_app().start(unix=path, cert="missing.pem")
    assert not path.exists()


def leave_behind(path: Path) -> None:
    """Create the file of a server that has died."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()


def test_a_stale_socket_file_is_replaced(path: Path) -> None:
    leave_behind(path)
    with page_app().start(unix=path):
        assert parse_response(ask(path, get("/"))).body == b"hello"
    assert not path.exists()


@pytest.mark.parametrize("busy", [False, True])
def test_the_file_of_a_running_server_is_an_error(path: Path, busy: bool) -> None:
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as waiting:
        living.bind(str(path))
        living.listen(0 if busy else 10)
        if busy:
            waiting.connect(str(path))
        with pytest.raises(OSError, match="in use"):
            page_app().start(unix=path)
        assert path.exists()


def make_file(path: Path) -> None:
    path.write_text("precious")


def make_link(path: Path) -> None:
    leave_behind(path.with_name("other"))
    path.symlink_to("other")


@pytest.mark.parametrize("make", [make_file, make_link, Path.mkdir])
def test_a_file_that_is_not_a_socket_is_not_removed(
    path: Path, make: Callable[[Path], None]
) -> None:
    make(path)
    before = os.lstat(path)
    with pytest.raises(OSError, match="in use by a file that is not a unix socket"):
        page_app().start(unix=path)
    assert os.path.samestat(os.lstat(path), before)


@pytest.mark.parametrize("make", [make_file, leave_behind])
def test_a_file_that_replaced_the_socket_is_not_removed(
    path: Path, make: Callable[[Path], None]
) -> None:
    with page_app().start(unix=path):
        path.unlink()
        make(path)
    assert path.exists()


@pytest.mark.parametrize("path", [Path("no such directory") / "s", Path("x" * 200)])
def test_an_invalid_path_is_an_error(path: Path) -> None:
    with pytest.raises(OSError, match=r"No such file|too long"):
        page_app().start(unix=path)


def test_curl_works_over_a_unix_socket(path: Path) -> None:
    program = shutil.which("curl")
    if program is None:
        missing_tool("curl")
    with page_app().start(unix=path):
        result = run([program, "-sS", "--unix-socket", str(path), "http://localhost/"])
        assert (result.stdout, result.stderr) == ("hello", "")


def test_a_client_that_disconnects_is_removed(path: Path) -> None:
    with page_app().start(unix=path) as server:
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                sock.sendall(b"GET")
        wait_for_disconnects(server)


@pytest.mark.parametrize("name", ["a\0b", "\0a"])
def test_a_path_that_cannot_be_bound_leaves_no_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="null"):
        App().start(unix=name)
    gc.collect()  # a socket left open would be a warning here
    assert not list(tmp_path.iterdir())


# Permissions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777])
def test_the_file_has_the_permissions_of_the_setting(path: Path, mode: int) -> None:
    with page_app().start(unix=path, unix_mode=mode):
        assert stat.S_IMODE(os.stat(path).st_mode) == mode
        assert parse_response(ask(path, get("/"))).body == b"hello"


@pytest.mark.parametrize("named", [False, True])
def test_the_file_has_the_group_of_the_setting(
    path: Path, named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.getgid()
    others = [group for group in os.getgroups() if group != mine]
    group = others[0] if others else mine
    if os.getuid() == 0:
        group = mine + 1  # whose name need not exist
    monkeypatch.setattr(grp, "getgrnam", {"proxies": grp.struct_group(("", "", group, []))}.get)
    with page_app().start(unix=path, unix_mode=0o660, unix_group="proxies" if named else group):
        assert os.stat(path).st_gid == group
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        assert parse_response(ask(path, get("/"))).body == b"hello"


def test_no_client_can_connect_before_the_permissions_are_set(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chmod, refused = os.chmod, []

    def connect_and_chmod(name: str, mode: int) -> None:
        with pytest.raises(ConnectionRefusedError):
            ask(path, get("/"))
        refused.append(mode)
        chmod(name, mode)

    monkeypatch.setattr(os, "chmod", connect_and_chmod)
    with page_app().start(unix=path, unix_mode=0o600):
        assert refused == [0o600]


def test_an_impossible_group_leaves_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chown(name: str, user: int, group: int, **options: bool) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    with pytest.raises(
        OSError,
        match=r"the group 7 to the socket \(unix_group\): Operation not permitted; .* a member of",
    ):
        page_app().start(unix=path, unix_group=7)
    with pytest.raises(ValueError, match=r"no such group: 'no such group' \(unix_group\)"):
        page_app().start(unix=path, unix_group="no such group")
    assert not path.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unix_mode": 0o660}, "require unix"),
        ({"unix_group": "root"}, "require unix"),
        ({"unix": "s", "unix_mode": 660}, "unix_mode must be from 0 to 0o777, as in 0o660: 0o1224"),
        ({"unix": "s", "unix_mode": -1}, "unix_mode must not be negative"),
        ({"unix": "s", "unix_group": -1}, "unix_group must not be negative"),
    ],
)
def test_invalid_settings_of_the_file_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        App().start(**options)
