"""A WebSocket in a pipe: messages from the standard input, and to the standard output."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from math import inf
from time import monotonic

from wsframe import ConnectionClosed
from wsframe.client import WebSocket

from ..exits import Exit
from ..printing import OutputError, write
from .terminal import note

STDIN = 0
READ_SIZE = 1 << 16
# The longest single wait, in seconds, because a signal just before a wait does not end it.
LONGEST_WAIT = 1.0


def is_terminal() -> bool:
    """Return True if the standard input is a terminal."""
    return os.isatty(STDIN)


def given(argument: str, *, binary: bool) -> str | bytes:
    """Return an argument as a message; in a text message, invalid UTF-8 is replaced."""
    data = os.fsencode(argument)
    return data if binary else data.decode("utf-8", "replace")


class Piped:
    """One connection. A thread receives, another one sends, and the main thread waits for the end.

    Args:
        ws: the open WebSocket.
        messages: the messages to send instead of the standard input.
        binary: True to send binary messages.
        wait: the silence of the server, after the end of the input, after which the connection is
            closed; in seconds.
        count: the number of messages to receive and print; later ones are discarded. The end
            waits until all ``messages`` are sent. None for any number.
        rest: the time for the rest of the standard input after the last expected message, in
            seconds.

    Attributes:
        closed_here: True if this side has closed the connection.
    """

    def __init__(
        self,
        ws: WebSocket,
        messages: Sequence[str | bytes],
        *,
        binary: bool,
        wait: float,
        count: int | None,
        rest: float = 1.0,
    ) -> None:
        self.closed_here: bool = False
        self._ws = ws
        self._messages = messages
        self._binary = binary
        self._wait = wait
        self._count = count
        self._rest = rest
        self._changed = threading.Condition()
        # The condition protects these:
        self._input_ended = False
        self._received = 0
        self._last = monotonic()  # the time of the last message, or of the end of the input
        self._ended = False  # True after the end of the connection or the output
        self._output_error: OutputError | None = None

    def run(self) -> Exit:
        """The main thread: exchange messages until the end.

        Raises:
            OutputError: the output cannot be written.
        """
        receiver = threading.Thread(target=self._receive)
        # A daemon thread, because a read of the standard input cannot be interrupted.
        sender = threading.Thread(target=self._send, daemon=True)
        try:  # Ctrl-C may interrupt any of these calls
            receiver.start()
            sender.start()
            self._wait_for_end()
        finally:
            self.closed_here = self._ws.close_code is None
            self._ws.close()
        receiver.join()
        if self._output_error is not None:
            raise self._output_error
        if self._messages:
            sender.join()
            if not self._input_ended:
                note("the connection ended before all messages were sent (--message)", "bad")
                return Exit.FAILED
        if self._count is not None and self._received < self._count:
            note(f"received {self._received} of {self._count} messages (--count)", "bad")
            return Exit.FAILED
        return Exit.OK

    def _wait_for_end(self) -> None:
        with self._changed:
            while not self._ended:
                remaining = self._last + self._patience() - monotonic()
                if remaining <= 0:
                    return
                self._changed.wait(min(remaining, LONGEST_WAIT))

    def _patience(self) -> float:
        """Return the time to wait after the last message, or after the end of the input."""
        if self._received != self._count:
            return self._wait if self._input_ended else inf
        if self._input_ended:
            return 0.0
        # The standard input may stay open without further lines.
        return inf if self._messages else self._rest

    def _receive(self) -> None:
        """The receiver's thread: print the messages until the end."""
        try:
            for message in self._ws:
                if self._received == self._count:
                    continue
                self._print(message)
                with self._changed:
                    self._received += 1
                    self._last = monotonic()
                    self._changed.notify()
        except OutputError as error:
            self._output_error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def _print(self, message: str | bytes) -> None:
        """Write a message, and a line break unless binary messages are expected."""
        data = message.encode() if isinstance(message, str) else message
        write(data if self._binary else data + b"\n")

    def _send(self) -> None:
        """The reader's thread: send the messages until the end of the input."""
        try:
            for message in self._messages or self._lines():
                self._ws.send(message)
        except (ConnectionClosed, TimeoutError):
            return
        with self._changed:
            self._input_ended = True
            self._last = monotonic()
            self._changed.notify()

    def _lines(self) -> Iterator[str | bytes]:
        """Yield the lines of the standard input; for binary messages, all of it.

        The input is read without the buffer of sys.stdin, whose lock would be held at the
        interpreter's end.
        """
        pending = bytearray()
        while data := _read():
            pending += data
            if not self._binary:
                *lines, rest = pending.split(b"\n")
                pending = rest
                for line in lines:
                    yield line.removesuffix(b"\r").decode("utf-8", "replace")
        if self._binary:
            yield bytes(pending)
        elif pending:
            yield pending.decode("utf-8", "replace")


def _read() -> bytes:
    """Wait for the next bytes of the standard input; return b"" at its end."""
    return os.read(STDIN, READ_SIZE)
