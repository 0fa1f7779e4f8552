"""Untrusted text and exceptions prepared for a log: cut, and without control characters.

A text is cut before it is escaped, and escaping stops at the limit. So neither the time nor the
size depends on what a client has sent.
"""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import TypeAlias

ExcInfo: TypeAlias = (
    "tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]"
)

# The maximum length of a log message, and of a traceback or the stack of a thread.
MAX_LINE, MAX_BLOCK = 4096, 16384
# The indentation of a traceback's lines. Without it, an exception's text could forge a log record.
MARGIN = "  "
# The maximum number of frames of a traceback: the innermost ones.
MAX_FRAMES = 50


def printable(text: str, limit: int = MAX_LINE, *, quoted: bool = False) -> str:
    """Any thread: escape characters that could forge a line or control a terminal.

    All characters that :meth:`str.isprintable` excludes are escaped as in a Python string: control
    characters, line and paragraph separators, and marks that change the direction of text.

    Args:
        text: the untrusted text, of any length.
        limit: maximum number of characters returned, without the note about omitted ones.
        quoted: escape double quotes and backslashes, too.
    """
    taken = text[:limit]
    if not taken.isprintable() or (quoted and ('"' in taken or "\\" in taken)):
        special = '"\\' if quoted else ""
        taken, parts, size = "", [], 0
        for character in text[:limit]:
            part = character
            if character in special:
                part = f"\\{character}"
            elif not character.isprintable():
                part = ascii(character)[1:-1]
            size += len(part)
            if size > limit:
                break
            parts.append(part)
        omitted, taken = len(text) - len(parts), "".join(parts)
    else:
        omitted = len(text) - len(taken)
    return f"{taken}...(+{omitted} characters)" if omitted else taken


def block(text: str, limit: int = MAX_BLOCK) -> str:
    """Any thread: escape and indent several lines; cut out the middle of a long text."""
    if len(text) > limit:
        half = limit // 2
        omitted = len(text) - 2 * half
        text = f"{text[:half]}\n...(+{omitted} characters)\n{text[-half:]}"
    lines = text.rstrip("\n").split("\n")
    return "\n".join(MARGIN + printable(line, limit) for line in lines)


def without_margin(text: str) -> str:
    """Any thread: remove the indentation that :func:`block` has added to a text."""
    return "\n".join(line.removeprefix(MARGIN) for line in text.split("\n"))


def traceback_of(exc_info: ExcInfo) -> str:
    """Any thread: return the traceback of an exception as a :func:`block`.

    The function calls ``str`` of the exception, which may be code of the application.
    """
    kind, error, frames = exc_info
    if kind is None or error is None:
        return block("no exception")
    try:
        report = traceback.TracebackException(kind, error, frames, limit=-MAX_FRAMES, compact=True)
        return block("".join(report.format()))
    except Exception as fault:
        # An error in the exception's cause or notes, or in reading a source file.
        return block(f"{kind.__name__} (formatting its traceback raised {type(fault).__name__})")
