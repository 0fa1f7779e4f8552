"""The request log: one record for each connection that has ended.

The logger is ``wsframe.access`` and the level INFO, so the log is off by default, without any cost.
The record has these attributes for handlers and formatters:

- ``client``: the address, as trusted proxies report it.
- ``method``, ``path``, ``user_agent``: from the request; None if it was malformed. The path is
  without the query, which may be a secret.
- ``status``: the status of the answer; 101 for a WebSocket.
- ``start``: the time of the connection, in UTC; ``seconds``: its duration.
- ``bytes_in``, ``bytes_out``: all bytes, including the heads of the request and the answer.
- ``messages_in``, ``messages_out``: the messages of a WebSocket, or the events of a stream.
- ``close_code``, ``close_reason``, ``subprotocol``: values of a WebSocket; otherwise None.

A client can neither forge a line nor make it long. Its values are cut to :data:`LIMITS`, and
unprintable characters, double quotes and backslashes are escaped.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING

from ..addresses import client_of
from ..reports.loggers import ACCESS, BackgroundLogger, logger
from ..reports.text import printable

if TYPE_CHECKING:
    from ..sockets.peer import Peer

FIELDS = (
    *("start", "seconds", "client", "method", "path", "status"),
    *("bytes_in", "bytes_out", "messages_in", "messages_out"),
    *("close_code", "close_reason", "subprotocol", "user_agent"),
)

# The maximum number of characters of each value; the longest record has about 2 KiB.
LIMITS = {
    "client": 64,
    "method": 32,
    "path": 1024,
    "close_reason": 128,
    "subprotocol": 128,
    "user_agent": 512,
}

log: BackgroundLogger = logger(ACCESS)


def log_connection(peer: Peer) -> None:
    """Loop owner: log a connection that has ended, unless it never sent anything to answer."""
    if not log.isEnabledFor(logging.INFO) or not (peer.record.status or peer.record.request):
        return
    fields = _fields(peer)
    log.info("%s", _line(fields), extra=fields)


def timestamp(seconds: float) -> str:
    """Any thread: return a time since the epoch in ISO 8601, in UTC."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(peer: Peer) -> dict[str, object]:
    record = peer.record
    request = record.request
    end = record.end if record.status == 101 else None
    seconds = peer.loop.timing.clock() - peer.opened
    texts: dict[str, str | None] = {
        "client": request.client if request is not None else client_of(peer.address),
        "method": request.method if request is not None else None,
        "path": request.path if request is not None else None,
        "close_reason": end.reason if end is not None else None,
        "subprotocol": record.subprotocol,
        "user_agent": request.user_agent if request is not None else None,
    }
    values = {
        "start": timestamp(time() - seconds),
        "seconds": round(seconds, 3),
        "status": record.status or None,
        "bytes_in": peer.bytes_in,
        "bytes_out": peer.bytes_out,
        "messages_in": peer.messages_in,
        "messages_out": peer.messages_out,
        "close_code": int(end.code) if end is not None else None,
        **{
            name: text if text is None else printable(text, LIMITS[name], quoted=True)
            for name, text in texts.items()
        },
    }
    return {name: values[name] for name in FIELDS}


def _line(fields: dict[str, object]) -> str:
    """Return the text of a record."""
    request = "-" if fields["method"] is None else f"{fields['method']} {fields['path']}"
    line = (
        f'{fields["start"]} {fields["client"]} "{request}" {fields["status"] or "-"}'
        f" seconds={fields['seconds']:.3f} bytes={fields['bytes_in']}/{fields['bytes_out']}"
        f" messages={fields['messages_in']}/{fields['messages_out']}"
    )
    if fields["close_code"] is not None:
        line += f" close={fields['close_code']}"
    for name in ("close_reason", "subprotocol", "user_agent"):
        if fields[name]:
            line += f' {name}="{fields[name]}"'
    return line
