"""Standard output and error: lines for people, which decide nothing.

Whoever reads them may be slow or gone, and the disk that they go to may be full. The server neither
waits for that nor fails because of it.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from contextlib import suppress
from typing import TextIO

from ..timing import Timing

# The name of the thread that flushes the streams at the end.
SETTLING = "wsframe-output"


def announce(line: str) -> None:
    """Any thread: print a line on standard output, unless that would have to wait."""
    stream = sys.stdout
    with suppress(Exception):  # it is closed, its reader is gone, or an application's object fails
        file = _descriptor(stream)
        if file is None:
            stream.write(f"{line}\n")
            stream.flush()
        elif _takes_more(file, 0):
            # Past the stream, in whose buffer may be more than can be written at once.
            os.write(file, f"{line}\n".encode(stream.encoding, "backslashreplace"))


def flush() -> None:
    """The main thread: flush both streams, unless that would have to wait."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            file = _descriptor(stream)
            if file is None or _takes_more(file, 0):
                stream.flush()


def settle() -> bool:
    """The main thread, at the end: flush both streams; what cannot be written is lost.

    Python would wait for that without end when it exits, or make it the exit code 120. A second
    call does not wait again for a stream that stood still in the first one.

    Returns:
        False if a thread of the application is writing to a stream, and stands still.
    """
    if any(thread.name == SETTLING for thread in threading.enumerate()):
        return False
    thread = threading.Thread(target=_settle, name=SETTLING, daemon=True)
    with suppress(RuntimeError):  # the system has no thread left
        thread.start()
        thread.join(Timing.output_timeout + Timing.output_flush_timeout)
    return not thread.is_alive()


def _settle() -> None:
    """A thread of its own: a stream has a lock, and one that writes to it may keep that."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            file = _descriptor(stream)
            try:
                if file is not None and not _takes_more(file, Timing.output_timeout / 2):
                    raise BlockingIOError
                stream.flush()
            except OSError:
                if file is not None:
                    _discard(stream, file)


def _descriptor(stream: TextIO) -> int | None:
    """The number of the stream's descriptor; None for an object that has none."""
    try:
        return stream.fileno()
    except (AttributeError, OSError):
        return None


def _takes_more(file: int, timeout: float) -> bool:
    """Whether the descriptor takes what is written, or fails at once, within so many seconds."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poller = select.poll()
    poller.register(file, select.POLLOUT)
    return bool(poller.poll(timeout * 1000))


def _discard(stream: TextIO, file: int) -> None:
    """Empty the stream's buffer to nowhere; what is written later goes where it went before."""
    before = os.dup(file)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, file, inheritable=file <= 2)
        stream.flush()
    finally:
        os.dup2(before, file, inheritable=file <= 2)
        os.close(before)
        os.close(nowhere)
