"""The options of requests: URLs, headers, TLS and numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.certificates import Certificates
from tests.support.serving import Serve
from wsframe.cli.client.options import complete, headers
from wsframe.server import App


@pytest.mark.parametrize(
    ("url", "websocket", "stream", "either"),
    [
        ("a:92/x", "ws://a:92/x", "http://a:92/x", "ws://a:92/x"),
        ("a.b/?u=b://c", "ws://a.b/?u=b://c", "http://a.b/?u=b://c", "ws://a.b/?u=b://c"),
        ("ws://a/", "ws://a/", "http://a/", "ws://a/"),
        ("HTTPS://a/?u=b://c", "wss://a/?u=b://c", "https://a/?u=b://c", "https://a/?u=b://c"),
        ("ftp://a/", "ftp://a/", "ftp://a/", "ftp://a/"),
    ],
)
def test_a_url_may_have_any_scheme_of_the_web_or_none(
    url: str, websocket: str, stream: str, either: str
) -> None:
    completed = [complete(url, "ws"), complete(url, "http"), complete(url, "ws", "http")]
    assert completed == [websocket, stream, either]


@pytest.mark.parametrize("command", ["connect", "events", "doctor"])
def test_a_url_without_a_scheme_is_shown_as_it_is_used(run: Run, command: str) -> None:
    ran = run(command, "127.0.0.1:1/x")
    scheme = "http" if command == "events" else "ws"
    assert f"{scheme}://127.0.0.1:1/x" in "".join(ran.out + ran.err)
    assert ran.code in (1, 3)
    description = " ".join("".join(f"{line} " for line in run(command, "--help").out).split())
    assert f"without a scheme, {scheme}:// (no TLS) is used" in description


def test_headers_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("Authorization: Bearer x:y\n\nCookie:a=b\n")
    assert headers(f"@{tmp_path / 'secrets'}") == [
        ("Authorization", "Bearer x:y"),
        ("Cookie", "a=b"),
    ]


INVALID = {
    "-H=nothing": "expected \"NAME: VALUE\", got 'nothing'",
    "-H=a b: c": "a header name must be a token: 'a b'",
    "-H=@none": "cannot read headers from 'none'",
    "--timeout=soon": "expected a number of seconds or inf, got 'soon'",
    "--timeout=-1": "expected a number of seconds or inf",
    "--timeout=nan": "expected a number of seconds or inf",
    "--count=0": "expected an integer that is at least 1, got '0'",
    "--count=²": "expected an integer that is at least 1",
    "--cacert=none": "cannot read a certificate or a key: No such file",
    "--cert=empty": "cannot use the client certificate (--cert) with its key",
    "-H=Upgrade: x": "reserved",
    "--nothing": "unrecognized arguments",
}


@pytest.mark.parametrize("command", ["connect", "events"])
@pytest.mark.parametrize("option", INVALID)
def test_an_invalid_argument_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    ran = run(command, "localhost:9", *option.split("=", 1))
    assert ran.code == 2
    assert ran.err[0].startswith(f"usage: wsframe {command}")
    assert INVALID[option] in ran.err[-1]


@pytest.mark.parametrize("command", ["connect", "events"])
@pytest.mark.parametrize("url", ["ftp://localhost/", "http://", "localhost/#part"])
def test_an_invalid_url_is_named(run: Run, command: str, url: str) -> None:
    ran = run(command, url)
    assert ran.code == 2
    assert "error: " in ran.err[-1]


def app() -> App:
    app = App()

    @app.websocket("/x")
    def websocket(ws: object) -> None:
        ws.send("hello")  # type: ignore[attr-defined]

    @app.sse("/x")
    def stream(stream: object):  # type: ignore[no-untyped-def]
        yield "hello"

    return app


@pytest.mark.parametrize("command", ["connect", "events"])
def test_certificates_are_checked_unless_the_option_is_insecure(
    run: Run, serve: Serve, certificates: Certificates, tmp_path: Path, command: str
) -> None:
    certificates.write(tmp_path)
    server = serve(app(), ssl_context=certificates.server, drain=0.1)
    url = f"https://localhost:{server.port}/x"
    ran = run(command, url)
    assert ran.code == 3
    assert "the certificate is not valid: " in ran.err[1]
    assert "--insecure" in ran.err[1]
    for options in (
        ["-k"],
        ["--cacert", tmp_path / "ca.pem"],
        ["-k", "--cert", tmp_path / "both.pem"],
    ):
        ran = run(command, url, "-n", 1, *options)
        assert (ran.code, ran.out) == (0, ["hello"])
