"""A WebSocket on a terminal: typed lines are messages, and received messages appear above them."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wsframe import ConnectionClosed
from wsframe.client import WebSocket

from ..exits import Exit
from .terminal import Screen, history, printable

# The maximum number of bytes of a binary message that are shown.
MAX_DUMP = 256
BYTES_PER_ROW = 16
REPEAT = 0.05  # the pause between two interrupts of the main thread, in seconds

HELP = """\
/ping                    measure the time until the pong
/hex 68 69               send a binary message
/file PATH               send the content of a file as a binary message
/close [CODE [REASON]]   close the connection
//text                   send "/text"
Ctrl-D                   close the connection"""


class Interactive:
    """One connection. The main thread reads lines, and a thread receives messages.

    Args:
        ws: the open WebSocket.
        binary: True to send typed lines as binary messages.
        keep_history: True to read and write the file with earlier lines.

    Attributes:
        closed_here: True if this side has closed the connection.
    """

    def __init__(self, ws: WebSocket, *, binary: bool, keep_history: bool) -> None:
        self.closed_here: bool = False
        self._ws = ws
        self._binary = binary
        self._keep_history = keep_history
        self._screen = Screen("> ")
        self._ended = threading.Event()  # set at the end of the connection
        self._left = threading.Event()  # set when the main thread reads no more lines
        self._reading = False  # True while the main thread waits for a line
        self._interruptible = True
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self._help,
            "ping": self._ping,
            "hex": self._hex,
            "file": self._file,
            "close": self._close,
        }

    def run(self) -> Exit:
        """The main thread: exchange messages until the end."""
        receiver = threading.Thread(target=self._receive)
        with history(keep=self._keep_history), self._interrupts():
            receiver.start()
            code = Exit.OK
            try:
                self._handle_lines()
            except EOFError:
                self._screen.clear()
            except KeyboardInterrupt:
                self._screen.clear()
                code = Exit.INTERRUPTED
            except (ConnectionClosed, TimeoutError):
                pass  # the close code and reason are printed at the end
            finally:
                self._left.set()
                self.closed_here = self.closed_here or self._ws.close_code is None
                self._ws.close()
                receiver.join()
        return code

    def _handle_lines(self) -> None:
        """Process typed lines until the end of the connection."""
        while True:
            try:
                if (line := self._next_line()) is None:
                    return
                self._handle(line)
            except UnicodeError as error:  # the line is not UTF-8
                self._screen.show(f"not sent: {printable(str(error))}", "bad")

    def _next_line(self) -> str | None:
        """Return the next line; None at the end of the connection."""
        self._reading = True
        try:
            if self._ended.is_set():
                return None
            return self._screen.read()
        except KeyboardInterrupt:
            if not self._ended.is_set():
                raise
            self._screen.clear()
            return None
        finally:
            self._reading = False

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Raise KeyboardInterrupt for the first SIGINT.

        A SIGINT after the end of the connection is ignored, unless a line is being read.
        """

        def interrupt(*_: object) -> None:
            if self._interruptible and (self._reading or not self._ended.is_set()):
                self._interruptible = False
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _receive(self) -> None:
        """The receiver's thread: show the messages, then interrupt the main thread."""
        for message in self._ws:
            if self._left.is_set():
                break  # the main thread is already waiting for the end
            self._screen.show(_shown(message), "in")
        self._ended.set()
        main = threading.main_thread().ident
        assert main is not None
        # A signal ends the main thread's wait for the terminal, unless it arrives just before that
        # wait. So the signal is repeated.
        while not self._left.wait(REPEAT):
            if not hasattr(signal, "pthread_kill"):  # Windows
                _thread.interrupt_main()
            else:
                signal.pthread_kill(main, signal.SIGINT)

    def _handle(self, line: str) -> None:
        """Send a line, or run it as a command."""
        if line.startswith("/") and not line.startswith("//"):
            name, _, argument = line[1:].partition(" ")
            command = self._commands.get(name)
            if command is None:
                self._screen.show(f"no command {printable(name)!r}; /help lists all", "bad")
            else:
                command(argument.strip())
        elif line:
            text = line.removeprefix("/")
            self._ws.send(text.encode("utf-8", "replace") if self._binary else text)

    def _help(self, _: str) -> None:
        self._screen.show(HELP, "note")

    def _ping(self, _: str) -> None:
        try:
            seconds = self._ws.round_trip()
        except TimeoutError as error:
            self._screen.show(str(error), "bad")
        else:
            self._screen.show(f"pong after {1000 * seconds:.1f} ms", "note")

    def _hex(self, digits: str) -> None:
        try:
            data = bytes.fromhex(digits)
        except ValueError:
            self._screen.show("expected pairs of hexadecimal digits, as in /hex 68 69", "bad")
        else:
            self._ws.send(data)

    def _file(self, name: str) -> None:
        try:
            data = Path(name).expanduser().read_bytes()
        except OSError as error:
            self._screen.show(f"cannot read {printable(name)!r}: {error.strerror}", "bad")
        else:
            self._ws.send(data)
            self._screen.show(f"sent {len(data)} bytes", "note")

    def _close(self, argument: str) -> None:
        code, _, reason = argument.partition(" ")
        self.closed_here = self._ws.close_code is None
        try:
            self._ws.close(int(code or 1000), reason)
        except ValueError as error:
            self.closed_here = False
            self._screen.show(str(error), "bad")
        else:
            self._ended.wait()


def _shown(message: str | bytes) -> str:
    """Return a message as text for the terminal; bytes become a hexadecimal dump."""
    if isinstance(message, str):
        return "\n".join(f"< {printable(line)}" for line in message.split("\n"))
    lines = [f"< binary, {len(message)} bytes"]
    for start in range(0, min(len(message), MAX_DUMP), BYTES_PER_ROW):
        row = message[start : start + BYTES_PER_ROW]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"  {row.hex(' '):{3 * BYTES_PER_ROW}} {text}")
    return "\n".join([*lines, *(["  ..."] if len(message) > MAX_DUMP else [])])
