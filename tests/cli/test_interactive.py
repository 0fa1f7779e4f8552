"""The command ``connect`` on a terminal."""

from __future__ import annotations

import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripted import Script, ScriptedServer, Visit
from tests.support.waiting import TIMEOUT
from wsframe import Close, Ping

if sys.platform == "win32":
    pytest.skip("there is no pseudo-terminal", allow_module_level=True)

from tests.support.terminal import Terminal

pytestmark = pytest.mark.slow

PROMPT = ">[ \x1b]"  # a message may arrive in the middle of it
# The sequence that inserts one row above the input.
ABOVE = "\x1b7\r\n\r\x1b[1A\x1b[1L"
BACK = "\x1b8\x1b[1B"
COLOR, PLAIN = "\x1b[36m", "\x1b[0m"


class Session:
    """The command on a terminal, and the server that it is connected to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, script: Script, *options: str, columns: int = 40) -> Terminal:
        """Start both."""
        self.server = ScriptedServer(script)
        command = [sys.executable, "-m", "wsframe", "connect", self.server.url(), *options]
        self.terminal = Terminal(command, self._directory, columns=columns)
        self._lines = 0
        self.terminal.expect("Connected to ")
        self.await_prompt()
        return self.terminal

    def await_prompt(self) -> None:
        """Wait until the program is ready for the next line."""
        self.terminal.wait_for(PROMPT, self._lines + 1)

    def enter(self, line: str) -> None:
        """Type a line."""
        self.await_prompt()
        self._lines += 1
        self.terminal.type(f"{line}\n")

    def end(self) -> int:
        """Type Ctrl-D; return the exit code."""
        self.await_prompt()
        self.terminal.type("\x04")
        return self.terminal.wait()


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Sessions that end with the test."""
    session = Session(tmp_path)
    yield session
    session.terminal.__exit__()
    session.server.stop()


def echo(visit: Visit) -> None:
    """Answer every message with itself, until the client closes."""
    visit.upgrade()
    while True:
        match visit.next_event():
            case str() | bytes() as message:
                visit.send(visit.codec.encode(message))
            case Ping(payload):
                visit.send(visit.codec.pong(payload))
            case Close(code):
                visit.send(visit.codec.close(code))
                return


def test_a_typed_line_is_sent_and_the_answer_appears_above_the_prompt(session: Session) -> None:
    terminal = session.open(echo)
    session.enter("hello")
    terminal.expect(f"{COLOR}< hello{PLAIN}")
    assert session.end() == 0
    terminal.expect("Closed: 1000")


def test_a_message_does_not_disturb_the_typed_text(session: Session) -> None:
    typed = threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert typed.wait(TIMEOUT)
        visit.send_messages("news")
        assert visit.next_event() == "unfinished"
        visit.answer_close()

    terminal = session.open(script)
    terminal.type("unfin")
    terminal.expect("unfin")
    typed.set()
    terminal.expect(f"{ABOVE}{COLOR}< news{PLAIN}{BACK}")
    session.enter("ished")
    assert session.end() == 0


def test_a_message_appears_above_an_input_of_several_rows(session: Session) -> None:
    typed = threading.Event()

    def script(visit: Visit) -> None:
        visit.upgrade()
        assert typed.wait(TIMEOUT)
        visit.send_messages("x" * 25)
        visit.answer_close()

    terminal = session.open(script, columns=20)
    terminal.type("y" * 29 + "z")
    terminal.expect("z")
    typed.set()
    # Two rows of the message, above two rows of the prompt and the input.
    terminal.expect("\x1b7\r\n\r\n\r\x1b[3A\x1b[2L" + f"{COLOR}< {'x' * 18}{PLAIN}")
    terminal.type("\x15")
    assert session.end() == 0


def test_messages_for_people_have_no_control_characters(session: Session) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == "begin"
        visit.send_messages("\x1b[2Jone\ntwo", b"\x00hi" + b"." * 300)
        visit.answer_close()

    terminal = session.open(script, columns=100)
    session.enter("begin")
    terminal.expect(r"< \x1b[2Jone")
    terminal.expect("< two")
    terminal.expect("< binary, 303 bytes")
    terminal.expect("  00 68 69 2e")
    terminal.expect(" .hi.............")
    terminal.expect("  ...")
    assert session.end() == 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/hex 68 69", b"hi"),
        ("//x", "/x"),
        ("/file data", b"\x00\x01"),
        ("grün", "grün"),
    ],
)
def test_commands_send_messages(
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    expected: str | bytes,
) -> None:
    received: list[Any] = []

    def script(visit: Visit) -> None:
        visit.upgrade()
        received.append(visit.next_event())
        visit.answer_close()

    (tmp_path / "data").write_bytes(b"\x00\x01")
    monkeypatch.chdir(tmp_path)
    session.open(script)
    session.enter(line)
    assert session.end() == 0
    assert received == [expected]


def test_commands_answer_on_the_terminal(session: Session) -> None:
    terminal = session.open(echo, columns=100)
    for line, answer in (
        ("/ping", "pong after "),
        ("/help", "/file PATH"),
        ("/hex 1", "expected pairs of hexadecimal digits"),
        ("/file none", "cannot read 'none': No such file"),
        ("/close 99", "99"),
        ("/nothing", "no command 'nothing'"),
        ("", ""),
    ):
        session.enter(line)
        terminal.expect(answer)
    session.enter("/close 4000 enough")
    terminal.expect("Closed: 4000 enough")
    assert terminal.wait() == 0


def test_the_end_during_a_command_ends_the_session(session: Session) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert isinstance(visit.next_event(), Ping)
        visit.send(visit.codec.close(4002, "no pings"))
        assert visit.next_event() == Close(4002)

    terminal = session.open(script)
    session.enter("/ping")
    terminal.expect("The server closed the connection: 4002 no pings")
    assert terminal.wait() == 1


def test_a_message_after_the_close_frame_is_not_shown(session: Session) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        close = visit.next_event()
        assert isinstance(close, Close)
        visit.send_messages("too late")
        visit.send(visit.codec.close(close.code))

    terminal = session.open(script)
    assert session.end() == 0
    terminal.expect("Closed: 1000")
    assert "too late" not in terminal.transcript


def test_a_line_that_is_not_utf_8_is_not_sent(session: Session) -> None:
    terminal = session.open(echo, columns=100)
    session.enter("a\udcff")
    terminal.expect("not sent: ")
    session.enter("next")
    terminal.expect("> next")
    terminal.expect("next")  # its answer
    assert session.end() == 0


def test_lines_may_be_sent_as_binary_messages(session: Session) -> None:
    terminal = session.open(echo, "--binary")
    session.enter("hi")
    terminal.expect("< binary, 2 bytes")
    assert session.end() == 0


def test_the_end_of_the_connection_ends_the_wait_for_a_line(session: Session) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade()
        assert visit.next_event() == "begin"
        visit.send(visit.codec.close(4001, "see you"))
        assert visit.next_event() == Close(4001)

    terminal = session.open(script)
    session.enter("begin")
    terminal.type("unfinished")
    terminal.expect("The server closed the connection: 4001 see you")
    assert terminal.wait() == 1


def test_ctrl_c_closes_the_connection(session: Session) -> None:
    terminal = session.open(echo)
    terminal.type("unfinished")
    terminal.expect("unfinished")
    assert terminal.interrupt() == 130
    terminal.expect("Closed: 1000")


def test_typed_lines_are_kept_for_the_next_time(session: Session, tmp_path: Path) -> None:
    terminal = session.open(echo)
    session.enter("first")
    terminal.expect("< first")
    assert session.end() == 0
    file = tmp_path / "wsframe" / "history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    session.server.stop()

    terminal.__exit__()
    terminal = session.open(echo)
    session.enter("\x1b[A")
    terminal.expect("< first")
    assert session.end() == 0


def test_without_history_no_line_is_kept(session: Session, tmp_path: Path) -> None:
    terminal = session.open(echo, "--no-history")
    session.enter("secret")
    terminal.expect("< secret")
    assert session.end() == 0
    assert list(tmp_path.iterdir()) == []


def test_the_agreement_is_shown(session: Session) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade(subprotocols=["chat"])
        visit.answer_close()

    session.open(script, "-s", "chat", columns=100)
    assert session.end() == 0
