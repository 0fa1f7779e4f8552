"""What a server has done, in numbers: for ``server.stats()``, and as text for a metrics scraper.

What a connection counts stays on it while it is open; nobody but the owner writes it, and anybody
may read it. When it ends, its loop's totals take it over.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Protocol

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# What a connection may be.
REQUEST, WEBSOCKET, EVENT_STREAM = "request", "websocket", "event_stream"


@dataclass(frozen=True, kw_only=True)
class Stats:
    """The numbers of a server, or of all servers of an app that run. Nothing is ever reset.

    Where an app is served by several workers, ``/metrics`` shows the numbers of all of them.

    Attributes:
        uptime: how long it has run, in seconds; of several, the longest.
        requests: connections that are open and (still) nothing but a request and its answer.
        websockets: WebSockets that are open.
        event_streams: event streams that are open.
        accepted: connections, ever.
        refused: requests that were refused, by the status that they were answered.
        refused_for: the same, by the reason: "host", "origin", "authorize", "path", "method",
            "upgrade", "version", "malformed", "too_large", "connections" (there are too many),
            "threads" (none is free), "failed" (the application's ``authorize`` raised an error).
        messages_in: messages that WebSockets have received.
        messages_out: messages and events that have been sent to clients; a handler's pings count.
        bytes_in: bytes received, with all that is around messages.
        bytes_out: bytes sent, likewise.
        threads: all threads of the server: for its loops, its handlers, its queues.
        handlers_in_threads: handlers that have a thread at the moment.
        handlers_waiting: handlers that wait for one.
        orphaned_handlers: those that have still had one for more than 5 seconds since their client
            left; they run as long as they like.
        handoffs: loops handed to another thread because a handler blocked.
        loops: the I/O loops.
        slow_clients: clients that were cut off, because they did not take what they were sent.
        ping_timeouts: clients that were cut off, because they did not answer a ping.
        topics: topics that are in use, or remember something.
        subscriptions: subscriptions to topics.
        published: events published to topics by this process.
        topic_events: events that topics have sent, to each client.
        dropped_events: events that topics' subscribers have lost, or connections, for they were too
            slow; and events that newer ones have replaced.
        lost_log_records: records of the log that this process has lost, because they could not be
            written, or not as fast as they came.
        processes: the processes that have told their numbers.
        missing_processes: workers that have not, because they hang or are busy; the last numbers
            that they have told stand for them.
        replaced_processes: workers that have ended unasked, or hung, and were replaced.
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
    """A connection, as far as it counts; see :class:`Stats`."""

    messages_in: int
    bytes_in: int
    bytes_out: int

    @property
    def messages_out(self) -> int: ...


class Totals:
    """What one loop has counted. Its owner writes; what must fit together, under the lock.

    Attributes:
        lock: for ``messages_in`` to ``bytes_out``, and the loop's set of connections.
        others: as in :class:`Stats`.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.accepted = 0
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.slow_clients = 0
        self.ping_timeouts = 0
        self.subscriptions = 0
        self.topic_events = 0

    def take_over(self, peer: Counted) -> None:
        """Owner, under the lock: a connection is over."""
        self.messages_in += peer.messages_in
        self.messages_out += peer.messages_out
        self.bytes_in += peer.bytes_in
        self.bytes_out += peer.bytes_out


def total(several: Iterable[Stats]) -> Stats:
    """Any thread: the numbers of several in one."""
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
    """One metric, and which fields it shows, by the label that tells them apart."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: Mapping[str, str]
    unit: str = ""

    def lines(self, stats: Stats) -> Iterator[str]:
        """The metric and its samples."""
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
        "How long the server has run.",
        {"": "uptime"},
        unit="seconds",
    ),
    Metric(
        "wsframe_connections",
        "gauge",
        "Connections that are open.",
        {
            '{kind="request"}': "requests",
            '{kind="websocket"}': "websockets",
            '{kind="event_stream"}': "event_streams",
        },
    ),
    Metric("wsframe_accepted_connections", "counter", "Connections accepted.", {"": "accepted"}),
    Metric(
        "wsframe_refused_requests",
        "counter",
        "Requests refused, by the status of the answer.",
        {"status": "refused"},
    ),
    Metric(
        "wsframe_refusals",
        "counter",
        "Requests refused, by the reason.",
        {"reason": "refused_for"},
    ),
    Metric(
        "wsframe_messages",
        "counter",
        "Messages received from clients, messages and events sent to them.",
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
        "Handlers that have a thread, and that wait for one.",
        {'{state="running"}': "handlers_in_threads", '{state="waiting"}': "handlers_waiting"},
    ),
    Metric(
        "wsframe_orphaned_handlers",
        "gauge",
        "Handlers that still have a thread long after their client has left.",
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
        "Clients cut off that were too slow, or did not answer a ping.",
        {'{reason="slow"}': "slow_clients", '{reason="ping"}': "ping_timeouts"},
    ),
    Metric("wsframe_topics", "gauge", "Topics in use, or with a history.", {"": "topics"}),
    Metric("wsframe_subscriptions", "gauge", "Subscriptions to topics.", {"": "subscriptions"}),
    Metric("wsframe_published_events", "counter", "Events published to topics.", {"": "published"}),
    Metric(
        "wsframe_topic_events",
        "counter",
        "Events that topics have sent, to each client.",
        {"": "topic_events"},
    ),
    Metric(
        "wsframe_dropped_events",
        "counter",
        "Events that clients of topics have lost, being slow, or that newer ones have replaced.",
        {"": "dropped_events"},
    ),
    Metric(
        "wsframe_lost_log_records",
        "counter",
        "Records of the log that could not be written, or not as fast as they came.",
        {"": "lost_log_records"},
    ),
    Metric(
        "wsframe_processes",
        "gauge",
        "Processes whose numbers these are; for missing ones stand the last that they have told.",
        {'{state="answering"}': "processes", '{state="missing"}': "missing_processes"},
    ),
    Metric(
        "wsframe_replaced_processes",
        "counter",
        "Workers that have ended unasked, or hung, and were replaced.",
        {"": "replaced_processes"},
    ),
)


def encode(stats: Stats) -> bytes:
    """Any thread: the numbers in the text format of OpenMetrics 1.0."""
    lines = [line for metric in METRICS for line in metric.lines(stats)]
    return "\n".join([*lines, "# EOF", ""]).encode()
