"""The standard streams of the commands, and output at which commands end if it fails."""

from __future__ import annotations

import os
import sys


class OutputError(Exception):
    """The error for standard output that cannot be written.

    Its text is the reason, or empty if the reader of a pipe has ended.
    """


def write(data: str | bytes) -> None:
    """Write to the standard output at once; after an error, all further output is discarded.

    Raises:
        OutputError: the output cannot be written.
    """
    try:
        if isinstance(data, str):
            sys.stdout.write(data)
        else:
            sys.stdout.buffer.write(data)
        sys.stdout.flush()
    except OSError as error:
        _discard_output()
        reason = "" if isinstance(error, BrokenPipeError) else f"{error.strerror}"
        raise OutputError(reason) from None


def replace_closed_streams() -> None:
    """Let a closed standard input be empty, and a closed standard output or error discard its text.

    The first files that the program opens would otherwise get the descriptors.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # the new file has its descriptor, the lowest free one
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _discard_output() -> None:
    """Discard all further output; the interpreter's flush at its end would fail again."""
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
