"""Sizes: the limits of topics that no setting changes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of an app's topics, except those of :meth:`wsframe.server.App.topic`.

    One record serves all topics of an app. Tests pass their own to :class:`wsframe.server.App`,
    with smaller values. The fields below are the defaults.

    Attributes:
        fanout_batch: the number of clients that are sent events before the loop polls its sockets
            again.
        piece: the weight of the entries that a lagging client is sent at once. The next piece is
            sent when the socket has accepted this one. Publishers are slowed down to this pace.
        pieces: the number of pieces that a lagging client is sent before other clients.
        spare_positions: the number of positions of forgotten entries that the log of a "latest"
            topic keeps, in addition to one per entry.
        max_unused: the maximum number of topics without subscribers; clients often choose the
            names.
        max_unused_bytes: the maximum memory of these topics, in bytes.
        max_listed: the maximum length of an id that lists the topics of a stream. Proxies often
            allow 8 KiB for a header.
        max_moves: the number of events of one stream whose positions are kept. A disconnected
            client has not received the events in flight.
        max_places_bytes: the maximum memory of all streams whose ids are tokens, in bytes. Beyond
            it the stream that was used longest ago is forgotten, and its client is sent a gap when
            it reconnects.
        max_waiting_bytes: the maximum weight of all events that wait for Redis, in bytes.
        max_leaving: the maximum number of members that wait for their removal from Redis. Further
            ones expire.
        read_batch: the number of streams that are read from Redis at once, and of entries that are
            read of each.
    """

    fanout_batch: int = 128
    piece: int = 64 * 1024
    pieces: int = 16
    spare_positions: int = 100
    max_unused: int = 10_000
    max_unused_bytes: int = 64 << 20
    max_listed: int = 2048
    max_moves: int = 1024
    max_places_bytes: int = 64 << 20
    max_waiting_bytes: int = 32 << 20
    max_leaving: int = 10_000
    read_batch: int = 100


DEFAULT_SIZES = Sizes()
