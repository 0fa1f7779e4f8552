"""The statistics of a server: for ``server.stats()``, and as metrics for Prometheus.

Each open connection has its own counters, which only its owner writes and any thread may read. At
the connection's end, the counters are added to the totals of its loop.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# The kinds of connections.
REQUEST, WEBSOCKET, EVENT_STREAM = "request", "websocket", "event_stream"


@dataclass(frozen=True, kw_only=True)
class Stats:
    """The statistics of a server, or of all running servers of an app. No counter is ever reset.

    For an app with several workers, ``/metrics`` shows the statistics of all of them.

    >>> with App().start() as server:
    ...     server.stats().websockets
    0

    Attributes:
        uptime: time since the start in seconds; of several servers, the longest.
        requests: open connections that have not (yet) become a WebSocket or an event stream.
        websockets: open WebSockets.
        event_streams: open event streams.
        accepted: accepted connections.
        refused: refused requests, by the status of the answer.
        refused_for: refused requests, by reason: "host", "origin", "authorize", "path", "method",
            "upgrade", "version", "malformed", "too_large", "connections" (too many), "threads" (no
            free one), "failed" (the application's ``authorize`` raised an exception), "proxy" (no
            valid PROXY header). A connection without a valid PROXY header is closed, and counts
            as 400.
        messages_in: messages received by WebSockets.
        messages_out: messages and events sent to clients, and pings sent by handlers.
        bytes_in: bytes received, including HTTP and framing.
        bytes_out: bytes sent, including HTTP and framing.
        threads: all threads of the server: for its loops, its handlers and its queues.
        handlers_in_threads: handlers that are using a thread.
        handlers_waiting: handlers that are waiting for a thread.
        orphaned_handlers: handlers that still use a thread more than 5 seconds after the end of
            their connection.
        handoffs: loops handed to another thread because a handler blocked.
        loops: I/O loops.
        slow_clients: clients disconnected because they did not accept data in time.
        ping_timeouts: clients disconnected because they did not answer a ping.
        topics: topics in use or with a history.
        subscriptions: subscriptions to topics.
        published: events published to topics by this process.
        topic_events: events sent by topics, counted once per client.
        dropped_events: events that slow subscribers have missed, subscribers that were disconnected
            because they were too slow, and events that newer ones have replaced.
        lost_log_records: log records that this process has lost because they could not be written,
            or not fast enough.
        processes: processes that are included with current numbers.
        missing_processes: workers that did not answer, because they hang or are busy, and are
            included with their last numbers.
        replaced_processes: workers that ended unexpectedly or hung, and were replaced.
    """

    uptime: float = 0.0
    requests: int = 0
    websockets: int = 0
    event_streams: int = 0
    accepted: int = 0
    refused: Mapping[int, int] = field(default_factory=dict)
    refused_for: Mapping[str, int] = field(default_factory=dict)
    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    threads: int = 0
    handlers_in_threads: int = 0
    handlers_waiting: int = 0
    orphaned_handlers: int = 0
    handoffs: int = 0
    loops: int = 0
    slow_clients: int = 0
    ping_timeouts: int = 0
    topics: int = 0
    subscriptions: int = 0
    published: int = 0
    topic_events: int = 0
    dropped_events: int = 0
    lost_log_records: int = 0
    processes: int = 0
    missing_processes: int = 0
    replaced_processes: int = 0


class Counted(Protocol):
    """The counters of a connection; see :class:`Stats`."""

    messages_in: int
    bytes_in: int
    bytes_out: int

    @property
    def messages_out(self) -> int: ...


class Totals:
    """The counters of one loop, which its owner writes. ``Stats`` describes the other attributes.

    Attributes:
        lock: protects ``messages_in`` to ``bytes_out`` and the loop's set of connections.
    """

    def __init__(self) -> None:
        self.lock: threading.Lock = threading.Lock()
        self.accepted = 0
        self.messages_in: int = 0
        self.messages_out: int = 0
        self.bytes_in: int = 0
        self.bytes_out: int = 0
        self.slow_clients = 0
        self.ping_timeouts = 0
        self.subscriptions = 0
        self.topic_events = 0

    def take_over(self, peer: Counted) -> None:
        """Loop owner, under the lock: add the counters of a connection that has ended."""
        self.messages_in += peer.messages_in
        self.messages_out += peer.messages_out
        self.bytes_in += peer.bytes_in
        self.bytes_out += peer.bytes_out


def total(several: Iterable[Stats]) -> Stats:
    """Any thread: return the sum of several statistics."""
    several = list(several)
    sums: dict[str, Any] = {
        item.name: sum(getattr(stats, item.name) for stats in several)
        for item in fields(Stats)
        if item.name not in ("uptime", "refused", "refused_for")
    }
    refused: Counter[int] = Counter()
    refused_for: Counter[str] = Counter()
    for stats in several:
        refused.update(stats.refused)
        refused_for.update(stats.refused_for)
    return Stats(
        uptime=max((stats.uptime for stats in several), default=0.0),
        refused=dict(refused),
        refused_for=dict(refused_for),
        **sums,
    )


@dataclass(frozen=True)
class Metric:
    """A metric in OpenMetrics. ``samples`` maps labels to the names of :class:`Stats` fields."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: Mapping[str, str]
    unit: str = ""

    def lines(self, stats: Stats) -> Iterator[str]:
        """Yield the lines of the metric and its samples."""
        yield f"# HELP {self.name} {self.help}"
        yield f"# TYPE {self.name} {self.kind}"
        if self.unit:
            yield f"# UNIT {self.name} {self.unit}"
        name = f"{self.name}_total" if self.kind == "counter" else self.name
        for labels, attribute in self.samples.items():
            value = getattr(stats, attribute)
            if isinstance(value, Mapping):
                for key, number in sorted(value.items()):
                    yield f'{name}{{{labels}="{key}"}} {number}'
            else:
                yield f"{name}{labels} {value}"


METRICS = (
    Metric(
        "wsframe_uptime_seconds",
        "gauge",
        "Time since the start of the server.",
        {"": "uptime"},
        unit="seconds",
    ),
    Metric(
        "wsframe_connections",
        "gauge",
        "Open connections.",
        {
            '{kind="request"}': "requests",
            '{kind="websocket"}': "websockets",
            '{kind="event_stream"}': "event_streams",
        },
    ),
    Metric("wsframe_accepted_connections", "counter", "Accepted connections.", {"": "accepted"}),
    Metric(
        "wsframe_refused_requests",
        "counter",
        "Refused requests by the status of the answer.",
        {"status": "refused"},
    ),
    Metric(
        "wsframe_refusals",
        "counter",
        "Refused requests by reason.",
        {"reason": "refused_for"},
    ),
    Metric(
        "wsframe_messages",
        "counter",
        "Messages received from clients; messages and events sent to them.",
        {'{direction="in"}': "messages_in", '{direction="out"}': "messages_out"},
    ),
    Metric(
        "wsframe_traffic_bytes",
        "counter",
        "Bytes received from clients and sent to them.",
        {'{direction="in"}': "bytes_in", '{direction="out"}': "bytes_out"},
        unit="bytes",
    ),
    Metric("wsframe_threads", "gauge", "Threads of the server.", {"": "threads"}),
    Metric(
        "wsframe_handlers",
        "gauge",
        "Handlers that use a thread, and handlers that wait for one.",
        {'{state="running"}': "handlers_in_threads", '{state="waiting"}': "handlers_waiting"},
    ),
    Metric(
        "wsframe_orphaned_handlers",
        "gauge",
        "Handlers that still use a thread long after the end of their connection.",
        {"": "orphaned_handlers"},
    ),
    Metric("wsframe_loops", "gauge", "I/O loops.", {"": "loops"}),
    Metric(
        "wsframe_handoffs",
        "counter",
        "Loops handed to another thread because a handler blocked.",
        {"": "handoffs"},
    ),
    Metric(
        "wsframe_cut_off_clients",
        "counter",
        "Clients disconnected because they were too slow or did not answer a ping.",
        {'{reason="slow"}': "slow_clients", '{reason="ping"}': "ping_timeouts"},
    ),
    Metric("wsframe_topics", "gauge", "Topics in use or with a history.", {"": "topics"}),
    Metric("wsframe_subscriptions", "gauge", "Subscriptions to topics.", {"": "subscriptions"}),
    Metric("wsframe_published_events", "counter", "Events published to topics.", {"": "published"}),
    Metric(
        "wsframe_topic_events",
        "counter",
        "Events sent by topics, counted once per client.",
        {"": "topic_events"},
    ),
    Metric(
        "wsframe_dropped_events",
        "counter",
        "Events that slow clients have missed, or that newer events have replaced.",
        {"": "dropped_events"},
    ),
    Metric(
        "wsframe_lost_log_records",
        "counter",
        "Log records that could not be written, or not fast enough.",
        {"": "lost_log_records"},
    ),
    Metric(
        "wsframe_processes",
        "gauge",
        "Processes in these metrics; missing ones are included with their last numbers.",
        {'{state="answering"}': "processes", '{state="missing"}': "missing_processes"},
    ),
    Metric(
        "wsframe_replaced_processes",
        "counter",
        "Workers that ended unexpectedly or hung, and were replaced.",
        {"": "replaced_processes"},
    ),
)


COUNTERS = {
    attribute
    for metric in METRICS
    if metric.kind == "counter"
    for attribute in metric.samples.values()
}


def counters(stats: Stats) -> Stats:
    """Any thread: return only the counters, as they remain when a process has ended."""
    others: Iterable[str] = (item.name for item in fields(Stats) if item.name not in COUNTERS)
    empty = Stats()
    return replace(stats, **{name: getattr(empty, name) for name in others})


def encode(stats: Stats) -> bytes:
    """Any thread: return statistics in the text format of OpenMetrics 1.0."""
    lines = [line for metric in METRICS for line in metric.lines(stats)]
    return "\n".join([*lines, "# EOF", ""]).encode()
