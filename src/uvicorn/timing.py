"""Timing: the durations that no setting of uvicorn changes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The durations that apply to one connection, in seconds.

    A subclass of :class:`wsframe.uvicorn.WebSocketProtocol` may replace the durations in its
    attribute ``timing``. The fields below are the defaults.

    >>> class Patient(WebSocketProtocol):
    ...     timing = Timing(shutdown_timeout=5.0)

    Attributes:
        close_timeout: time that a client has to answer a close frame, and that an application has
            to answer the messages before the client's close frame.
        shutdown_timeout: time that a client has to answer the close frame of a server that stops.
        linger: time without data from a client that has violated the protocol, after which its
            connection is closed.
        flush_timeout: time in which the last bytes must be sent before the connection is aborted.
        read_ahead_after: time after which messages are read ahead while the application is busy.
            Then pings are answered and the end of the connection is noticed. Compressed messages
            are not read ahead.
    """

    close_timeout: float = 10.0
    shutdown_timeout: float = 1.0
    linger: float = 0.5
    flush_timeout: float = 10.0
    read_ahead_after: float = 1.0
