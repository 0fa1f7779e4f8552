"""The functions in use for the system calls and turns of one round of the loop.

The compiled functions are used if they were built and WSFRAME_PURE=1 does not disable them, as for
the codec. If gevent or eventlet has replaced the sockets, the system calls are made in Python.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from . import pure_rounds

__all__ = ["COMPILED", "Resumable", "Wire", "chosen", "run_turns", "usable"]

if TYPE_CHECKING:
    from . import pure_rounds as chosen
else:
    chosen = None
    if os.environ.get("WSFRAME_PURE", "") in ("", "0"):
        with suppress(ImportError):  # the module was not built, or does not support this system
            from . import _rounds as chosen
    if chosen is None:
        chosen = pure_rounds

#: True if the compiled functions exist.
COMPILED: bool = chosen is not pure_rounds

Wire = chosen.Wire
Resumable = chosen.Resumable
run_turns: Callable[[Any, Any, object, int], tuple[int, Any]] = chosen.run_turns


def usable() -> bool:
    """Any thread: return True if a loop that starts now may use the compiled functions.

    gevent and eventlet remove ``select.epoll``, because a thread that waits in the system would
    block all greenlets of the process.
    """
    return COMPILED and hasattr(select, "epoll")
