"""Lines about the state of the program on standard output and error.

The reader of a stream may be slow or have ended, and a disk may be full. The server neither waits
nor fails because of that.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO, TypeAlias

from ..timing import Timing
from .failure import Failure
from .text import printable

# The name of the thread that flushes the streams at exit.
FLUSH_THREAD = "wsframe-output"


#: A function that returns the line to print for a message, its level as in :mod:`logging`, and a
#: traceback or "".
Form: TypeAlias = "Callable[[str, int, str], str]"

_form: Form | None = None


def use_form(form: Form | None) -> None:
    """The main thread: print all later lines in another form; None for the form for people."""
    global _form
    _form = form


def is_plain() -> bool:
    """Any thread: return True if the lines are printed in the form for people."""
    return _form is None


def announce(message: str) -> None:
    """Any thread: print a line on standard output, unless that would block.

    The message may contain untrusted text, such as that of an exception.
    """
    line = printable(message) if _form is None else _form(message, logging.INFO, "")
    stream = sys.stdout
    with suppress(Exception):  # the stream may be closed, have no reader, or be a failing object
        file = _descriptor(stream)
        if file is None:
            stream.write(f"{line}\n")
            stream.flush()
        elif _is_writable(file, 0):
            # The stream is bypassed, because a write of its full buffer could block.
            os.write(file, f"{line}\n".encode(stream.encoding, "backslashreplace"))


def print_failure(failure: Failure) -> None:
    """The main thread: print the reason for which the program fails on standard error.

    The form for people is that of the interpreter.
    """
    if _form is None:
        text = str(failure)
    else:
        text = _form(failure.message, logging.CRITICAL, failure.traceback)
    with suppress(Exception):  # the exit code must not depend on the stream
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def flush() -> None:
    """The main thread: flush the standard output and error streams, unless that would block."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            file = _descriptor(stream)
            if file is None or _is_writable(file, 0):
                stream.flush()


def flush_at_exit() -> bool:
    """The main thread, at exit: flush standard output and error, or discard their unwritten text.

    Without this function, Python would wait for a blocked stream without a limit, or exit with code
    120. A second call does not wait again for a stream that blocked the first one.

    Returns:
        False if a thread of the application is blocked while it writes to a stream.
    """
    if any(thread.name == FLUSH_THREAD for thread in threading.enumerate()):
        return False
    thread = threading.Thread(target=_flush_or_discard, name=FLUSH_THREAD, daemon=True)
    with suppress(RuntimeError):  # the system cannot start another thread
        thread.start()
        thread.join(Timing.output_timeout + Timing.output_flush_timeout)
    return not thread.is_alive()


def _flush_or_discard() -> None:
    """The flushing thread: flush a stream, whose lock a blocked writer may hold."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            file = _descriptor(stream)
            try:
                if file is not None and not _is_writable(file, Timing.output_timeout / 2):
                    raise BlockingIOError
                stream.flush()
            except OSError:
                if file is not None:
                    _discard(stream, file)


def _descriptor(stream: TextIO) -> int | None:
    """Return the file descriptor of a stream; None for an object without one."""
    try:
        return stream.fileno()
    except (AttributeError, OSError):
        return None


def _is_writable(file: int, timeout: float) -> bool:
    """Wait up to a number of seconds; return True if a write will not block."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poller = select.poll()
    poller.register(file, select.POLLOUT)
    return bool(poller.poll(timeout * 1000))


def _discard(stream: TextIO, file: int) -> None:
    """Empty the stream's buffer into the null device, then restore the descriptor."""
    before = os.dup(file)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, file, inheritable=file <= 2)
        stream.flush()
    finally:
        os.dup2(before, file, inheritable=file <= 2)
        os.close(before)
        os.close(null)
