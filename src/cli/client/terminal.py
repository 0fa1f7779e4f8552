"""Output to a terminal: colors, escaped control characters, and lines above a prompt."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO
from unicodedata import combining, east_asian_width

try:
    import readline
except ImportError:  # Windows
    readline = None  # type: ignore[assignment]

STYLES = {"": "", "in": "36", "note": "2", "good": "32", "bad": "31", "warn": "33"}

# The number of columns if the terminal does not report its size.
COLUMNS, ROWS = 80, 24
HISTORY_LINES = 1000


def uses_color(stream: TextIO) -> bool:
    """Return True if a stream is a terminal that can show colors, and the user wants them."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, *, color: bool) -> str:
    """Return a text with the escape sequences of a style, a key of ``STYLES``."""
    code = STYLES[style]
    return f"\x1b[{code}m{text}\x1b[0m" if color and code else text


def printable(text: str) -> str:
    """Return a text in which control characters are escaped, so that none reaches a terminal."""
    return "".join(
        char if char.isprintable() or char == " " else char.encode("unicode_escape").decode()
        for char in text
    )


def note(text: str, style: str = "note") -> None:
    """Print a line, with its control characters escaped, to the standard error."""
    line = styled(printable(text), style, color=uses_color(sys.stderr))
    print(line, file=sys.stderr, flush=True)


def width(text: str) -> int:
    """Return the width of a printable text in columns."""
    return sum(
        0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1 for char in text
    )


def rows(text: str, columns: int) -> Iterator[str]:
    """Yield the parts of a line that fit into the columns of a terminal."""
    row, used = "", 0
    for char in text:
        size = width(char)
        if used + size > columns:
            yield row
            row, used = "", 0
        row += char
        used += size
    yield row


class Screen:
    """A terminal on which one thread reads lines after a prompt, while others print above it."""

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt
        self._lock = threading.Lock()
        self._color = uses_color(sys.stdout)
        self._prompting = False

    def read(self) -> str:
        """The main thread: return the next line.

        Raises:
            EOFError: the input has ended, with Ctrl-D.
        """
        self._prompting = True
        try:
            return input(self._prompt)
        finally:
            self._prompting = False

    def clear(self) -> None:
        """The main thread: remove the prompt, after :meth:`read` has raised an exception."""
        self._write("\r\x1b[J")

    def show(self, text: str, style: str = "") -> None:
        """Any thread: print a printable text of any number of lines above the prompt."""
        with self._lock:
            columns, height = self._size()
            if not self._prompting:
                self._write(styled(text, style, color=self._color) + "\n")
                return
            parts = [part for line in text.split("\n") for part in rows(line, columns)]
            above = self._rows_of_input(columns) - 1
            room = max(1, height - above - 2)
            for start in range(0, len(parts), room):
                self._insert(parts[start : start + room], above, style)

    def _insert(self, parts: list[str], above: int, style: str) -> None:
        """Insert rows above the input.

        Save the cursor, make room below the input by scrolling, insert empty rows before the input,
        fill them, and move the cursor by as many rows.
        """
        count = len(parts)
        text = "\r\n".join(styled(part, style, color=self._color) for part in parts)
        self._write(
            "\x1b7" + "\n" * count + f"\r\x1b[{count + above}A\x1b[{count}L{text}\x1b8\x1b[{count}B"
        )

    def _rows_of_input(self, columns: int) -> int:
        """Return the number of rows of the prompt and the typed text up to its end."""
        typed = readline.get_line_buffer() if readline is not None else ""
        return width(self._prompt + typed) // columns + 1

    def _size(self) -> tuple[int, int]:
        size = os.get_terminal_size(sys.stdout.fileno())
        return size.columns or COLUMNS, size.lines or ROWS

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


@contextmanager
def history(*, keep: bool) -> Iterator[None]:
    """Load the lines of earlier sessions, and save them at the end, readable only by the user."""
    if readline is None or not keep:
        yield
        return
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    path = Path(state).expanduser() / "wsframe" / "history"
    readline.set_history_length(HISTORY_LINES)
    with suppress(OSError):  # no file exists before the first session
        readline.read_history_file(path)
    try:
        yield
    finally:
        with suppress(OSError):  # a read-only home directory must not prevent the end
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            readline.write_history_file(path)
