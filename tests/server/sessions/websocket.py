"""WebSocket apps and their clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wsframe.server import WebSocket

Handler = Callable[[WebSocket], Any]


MIB = 1 << 20


def assert_traceback(record: Any, kind: type[BaseException], function: str) -> None:
    """Check that the record shows the line of the handler."""
    assert record.exc_info is not None
    error = record.exc_info[1]
    assert isinstance(error, kind)
    names = []
    traceback = error.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert function in names
