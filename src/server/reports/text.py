"""Text of strangers and of exceptions, made fit for a log: cut, and without control characters.

A text is cut before it is escaped, and escaping stops at the limit. So neither the time nor the
size depends on what a stranger has sent.
"""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import TypeAlias

ExcInfo: TypeAlias = (
    "tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]"
)

# Characters of a log message; of a traceback, or the stack of a thread.
LINE, BLOCK = 4096, 16384
# Every line of a traceback begins with this. So none that an exception's text forges looks like the
# beginning of a record.
MARGIN = "  "
# Frames of a traceback: those nearest to the error.
FRAMES = 50


def printable(text: str, limit: int = LINE, *, quoted: bool = False) -> str:
    """Any thread: the text without characters that could forge a line or control a terminal.

    Escaped as in a Python string are all characters that :meth:`str.isprintable` excludes: control
    characters, line and paragraph separators, and those that change the direction of text.

    Args:
        text: of any length.
        limit: how many characters to return, without the note about those that are left out.
        quoted: the text is to stand between double quotes: escape these, and the backslash.
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
        left_out, taken = len(text) - len(parts), "".join(parts)
    else:
        left_out = len(text) - len(taken)
    return f"{taken}...(+{left_out} characters)" if left_out else taken


def block(text: str, limit: int = BLOCK) -> str:
    """Any thread: several lines, each escaped and behind a margin; their middle may be cut out."""
    if len(text) > limit:
        half = limit // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n...(+{left_out} characters)\n{text[-half:]}"
    lines = text.rstrip("\n").split("\n")
    return "\n".join(MARGIN + printable(line, limit) for line in lines)


def without_margin(text: str) -> str:
    """Any thread: what :func:`block` has made, for a format that needs no margin."""
    return "\n".join(line.removeprefix(MARGIN) for line in text.split("\n"))


def traceback_of(exc_info: ExcInfo) -> str:
    """Any thread: an exception and where it was raised, as :func:`block` has it.

    It calls ``str`` of the exception, which is code of the application if the class is.
    """
    kind, error, frames = exc_info
    if kind is None or error is None:
        return block("no exception")
    try:
        report = traceback.TracebackException(kind, error, frames, limit=-FRAMES, compact=True)
        return block("".join(report.format()))
    except Exception as fault:  # its cause, its notes, or a file of the source is none
        return block(f"{kind.__name__}, whose traceback raises {type(fault).__name__}")
