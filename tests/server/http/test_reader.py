"""The reader of requests: its parser, and an internal error in it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.clients import Clients, get
from tests.support.log import ServerLog
from tests.support.waiting import TIMEOUT
from wsframe.server import Server
from wsframe.server.http.reader import RequestReader

WITHOUT_HTTPTOOLS = """
import sys
sys.modules["httptools"] = None
try:
    import wsframe.server
except ModuleNotFoundError as error:
    print(error.name, error, sep=": ")
"""


def test_without_its_parser_the_server_names_the_command_that_installs_it() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_HTTPTOOLS],
        capture_output=True,
        text=True,
        timeout=3 * TIMEOUT,
        check=True,
    )
    assert run.stdout == 'httptools: the server needs httptools: pip install "wsframe[server]"\n'


def test_an_internal_error_while_a_request_is_parsed_ends_its_connection(
    server: Server, clients: Clients, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(reader: RequestReader, name: bytes, value: bytes) -> None:
        raise LookupError

    with monkeypatch.context() as patch:
        patch.setattr(RequestReader, "on_header", fail)
        client = clients.connect(server)
        client.send(get("/"))
        assert client.read_to_end() == b""
        log.expect("internal error in the loop")
