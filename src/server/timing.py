"""Timing: the durations that no setting changes, and the clock that deadlines use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

# The longest wait for a lock, in seconds. Slightly more than TIMEOUT_MAX raises an OverflowError.
LONGEST_WAIT = threading.TIMEOUT_MAX / 2
# The longest wait of a poller, in seconds. More than 2**31 milliseconds raise an OverflowError.
LONGEST_POLL = 86_400.0


def waitable(seconds: float) -> float:
    """Any thread: limit a time to the range that a lock accepts; 0 if negative or NaN."""
    return min(max(0.0, seconds), LONGEST_WAIT)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The durations and counts of a server's mechanisms, except those of :class:`Settings`.

    One record serves an app, its topics and its servers. Tests pass their own to
    :class:`wsframe.server.App`, with other values or with a clock that they advance themselves.

    Durations are in seconds. Deadlines and ages use the clock. A thread that waits for another
    thread waits in real time. The fields below are the defaults.

    Attributes:
        clock: a function that returns the time in seconds, which never decreases.
        turn_slice: time that a turn may hold the loop. The monitor checks at this interval, so
            another thread takes over the loop after one to two slices.
        probation_turns: number of turns that must be quick in a thread before a connection that
            has blocked runs on the loop again. The switches to a thread in these turns cost about
            as much as one lost time slice.
        route_probation_turns: number of turns as ``probation_turns``, for the other connections of
            a suspect route.
        handoff_window: a route is suspected of blocking after three hand-offs within this time.
        route_memory: time for which new connections of a suspect route start in a thread.
        monitor_quiet_checks: number of successive checks without a turn after which the monitor
            sleeps.
        monitor_interval: pause between two checks of the loops by the sleeping monitor.
        thread_idle_timeout: time without work after which a thread ends.
        sweep_interval: pause between two checks of all deadlines of a loop.
        stall_threshold: a check of the deadlines that is later than this was delayed by a stopped
            process. No deadline counts the delay.
        paced_shutdown_interval: ``sweep_interval`` while the server stops and closes its clients
            one by one.
        request_grace: time in which the request of a connection may arrive after the server has
            begun to stop.
        handler_grace: time that handlers and threads have to end after their clients were
            disconnected.
        position_timeout: time that a subscription waits for an event that its client has received
            and this process has not read yet.
        log_flush_timeout: time that a stop, and the end of the process, wait for the log.
        unserved_delay: time after the first event in which a server of the app must start.
            Otherwise a log line states that the event reaches no client.
        log_throttle: minimum interval between two lines of one :class:`ThrottledLog`.
        delivery_slice: time for which a lagging client is sent events before others have their
            turn.
        publish_lock_timeout: time that a publishing thread waits for another thread's work on the
            topic. After it the event is queued, and a loop continues the work.
        publish_send_timeout: time that a thread which publishes faster than a loop sends waits for
            the loop.
        redis_timeout: time that Redis has to accept a connection or to reply.
        redis_stop_timeout: time that stopping threads wait for a reply of Redis.
        redis_min_backoff: pause before the first attempt to reconnect to Redis; it doubles with
            each attempt.
        redis_max_backoff: the longest pause before an attempt to reconnect to Redis.
        redis_refused_backoff: pause between two attempts while Redis lacks what topics require.
        redis_report_interval: minimum interval between two log lines about one outage of Redis.
        redis_exit_timeout: time that an exiting program waits until Redis has acknowledged its
            events.
        redis_read_timeout: time that the reader of topics in Redis waits for entries before it
            checks its connection.
        redis_ttl_margin: time that Redis keeps a topic's entries beyond ``max_age``, for late
            readers.
        redis_retry_delay: pause before the next attempt for a topic that Redis has refused.
        redis_probe_lifetime: time for which a check that Redis answers is valid.
        presence_ttl: time after which a member of a topic expires unless its process renews it.
        presence_renewal: interval at which a process renews its members.
        lease_ttl: time after which a process loses a channel unless it renews the lease.
        lease_renewal: interval at which a process renews its leases.
        channel_read_timeout: time of one wait for a message of a channel.
        queue_check_interval: interval at which a handler that waits for an item of a SimpleQueue
            checks whether its client has disconnected.
        overdue_after: time after which a handler that outlives its client is logged and counted.
        stats_timeout: time that an answer to ``/metrics`` waits for the numbers of each worker.
        report_timeout: time that a request for metrics or health waits for the supervisor or for
            Redis before it is answered with 503.
        stack_dump_timeout: time that a hanging worker has to write the stacks of its threads.
        worker_min_lifetime: a worker that ends sooner is replaced after a pause.
        restart_min_backoff: the first pause before a worker is replaced; each further pause is
            twice as long.
        restart_max_backoff: the longest pause before a worker is replaced.
        worker_grace: time beyond ``drain`` that a worker has to end before it is killed. The steps
            of its end have separate limits, whose sum is several seconds.
        child_join_timeout: time that a worker waits for a child process that it has terminated.
        output_timeout: time that an exiting program waits for room in standard output and error.
        output_flush_timeout: time that an exiting program then waits until both streams are
            flushed.
        notify_timeout: time that a service manager has to accept a notification.
        source_poll_interval: time that a thread waits for an item of a queue that feeds a topic,
            or for Redis to accept one, before it checks whether it must stop.
        source_stop_timeout: time that a thread of a queue or iterable has to end before it is
            abandoned.
    """

    clock: Callable[[], float] = time.monotonic
    turn_slice: float = 0.005
    probation_turns: int = 200
    route_probation_turns: int = 16
    handoff_window: float = 1.0
    route_memory: float = 60.0
    monitor_quiet_checks: int = 20
    monitor_interval: float = 1.0
    thread_idle_timeout: float = 10.0
    sweep_interval: float = 0.5
    stall_threshold: float = 1.0
    paced_shutdown_interval: float = 0.05
    request_grace: float = 0.5
    handler_grace: float = 0.5
    position_timeout: float = 2.0
    log_flush_timeout: float = 1.0
    unserved_delay: float = 30.0
    log_throttle: float = 1.0
    delivery_slice: float = 0.002
    publish_lock_timeout: float = 0.1
    publish_send_timeout: float = 0.25
    redis_timeout: float = 5.0
    redis_stop_timeout: float = 2.0
    redis_min_backoff: float = 0.05
    redis_max_backoff: float = 2.0
    redis_refused_backoff: float = 30.0
    redis_report_interval: float = 60.0
    redis_exit_timeout: float = 5.0
    redis_read_timeout: float = 1.0
    redis_ttl_margin: float = 60.0
    redis_retry_delay: float = 1.0
    redis_probe_lifetime: float = 1.0
    presence_ttl: float = 30.0
    presence_renewal: float = 10.0
    lease_ttl: float = 3.0
    lease_renewal: float = 1.0
    channel_read_timeout: float = 0.2
    queue_check_interval: float = 1.0
    overdue_after: float = 5.0
    worker_min_lifetime: float = 1.0
    restart_min_backoff: float = 0.1
    restart_max_backoff: float = 5.0
    worker_grace: float = 10.0
    child_join_timeout: float = 1.0
    output_timeout: float = 1.0
    output_flush_timeout: float = 0.5
    notify_timeout: float = 1.0
    source_poll_interval: float = 0.1
    source_stop_timeout: float = 0.5
    stats_timeout: float = 1.0
    report_timeout: float = 5.0
    stack_dump_timeout: float = 5.0
