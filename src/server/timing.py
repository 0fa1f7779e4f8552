"""Timing: the durations that no setting changes, and the clock that deadlines are measured with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

# The most that is asked of a lock, in seconds. A little over TIMEOUT_MAX is an OverflowError.
LONGEST_WAIT = threading.TIMEOUT_MAX / 2


def waitable(seconds: float) -> float:
    """Any thread: as much of this time as a lock can wait; 0 if it is negative or NaN."""
    return min(max(0.0, seconds), LONGEST_WAIT)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Every slice, interval and bound of a server, in seconds; :class:`Settings` has the rest.

    One record serves an app, its topics and its servers. Tests pass a record of their own to
    :class:`wsframe.server.App`: with other values, or with a clock that they advance themselves.

    The clock dates deadlines and ages. A thread that waits for another thread waits in real time.

    Attributes:
        clock: returns the time in seconds; it never decreases.
        turn_slice: how long a turn may hold the loop. The monitor looks this often, so another
            thread takes the loop after one to two slices.
        steal_window: a route is suspected of blocking when it lost the loop three times in this.
        route_memory: how long new connections of a suspected route start in a thread.
        monitor_pause: how often the sleeping monitor checks the loops without being woken.
        idle_thread: how long a thread without work waits for some before it ends.
        sweep_interval: the pause between two checks of all deadlines of a loop.
        standstill: a check of the deadlines that is later than this stood still with its process,
            and the delay does not count for any deadline.
        paced_shutdown_interval: the sweep interval while the server stops and closes its clients
            one by one.
        cut_off: how long handlers and threads have to end after their clients were cut off.
        placement: how long a subscription waits for an event that its client has seen and this
            process has not read yet.
        log_flush: how long a stop, and the end of the process, wait for the log to be written.
        log_silence: how long a rate-limited line of the log is followed by none of its kind.
        delivery_slice: how long events are sent to one client that is behind, before others have
            their turn.
        publish_patience: how long a thread that publishes waits for another one's work on the
            topic; then the event is queued, and a loop goes on with it.
        publish_wait: how long a thread that publishes faster than a loop sends waits for the loop.
        redis_answer: how long Redis may take to connect or to answer.
        redis_stop: how long threads that are to stop wait for an answer of Redis.
        redis_shortest_pause: the pause before the first attempt to connect to Redis again; it
            doubles with each attempt.
        redis_longest_pause: the longest of these pauses.
        redis_refused_pause: the pause between two attempts while Redis refuses what topics need.
        redis_exit: how long a program that ends waits until Redis has what it published.
        redis_listen: how long the reader of topics in Redis waits for news before it looks after
            its connection.
        redis_spare: how long Redis keeps a topic's entries beyond ``max_age``, for late readers.
        redis_retry: the pause before a topic is tried again that Redis has refused.
        presence: how long a member of a topic is believed to be there without news of its process.
        presence_interval: how often a process renews the presence of its members.
        lease: how long one process feeds a topic from a channel without a sign of life.
        lease_renewal: how often it gives that sign.
        channel_listen: how long the thread of the channels waits for a message at a time.
        queue_check: how often a handler that waits for an item of a SimpleQueue checks whether its
            client has left.
        outlived: how long a handler's thread may go on after its client has left, before that is
            logged and counted.
        census_wait: how long an answer to ``/metrics`` waits for the numbers of each worker.
        supervisor_answer: how long a worker waits for these numbers before it answers with 503.
        stack_dump: how long a worker that hangs may take to write the stacks of its threads.
        short_life: a worker that ends sooner is replaced after a pause.
        first_pause: the first such pause; each one that follows is twice as long.
        last_pause: the longest one.
        worker_grace: how long past ``drain`` a worker may take to end before it is killed.
        child_end: how long a worker waits for a child process that it has terminated.
        output_wait: how long the end of a program waits for room in its standard output and error.
        output_flush: how long it then waits until both are flushed.
        source_poll: how long a thread waits for the next item of a queue that feeds a topic, and
            for Redis to accept an item, before it checks whether to stop.
        source_stop: how long such a thread has to end before it is left behind.
    """

    clock: Callable[[], float] = time.monotonic
    turn_slice: float = 0.005
    steal_window: float = 1.0
    route_memory: float = 60.0
    monitor_pause: float = 1.0
    idle_thread: float = 10.0
    sweep_interval: float = 0.5
    standstill: float = 1.0
    paced_shutdown_interval: float = 0.05
    cut_off: float = 0.5
    placement: float = 2.0
    log_flush: float = 1.0
    log_silence: float = 1.0
    delivery_slice: float = 0.002
    publish_patience: float = 0.1
    publish_wait: float = 0.25
    redis_answer: float = 5.0
    redis_stop: float = 2.0
    redis_shortest_pause: float = 0.05
    redis_longest_pause: float = 2.0
    redis_refused_pause: float = 30.0
    redis_exit: float = 5.0
    redis_listen: float = 1.0
    redis_spare: float = 60.0
    redis_retry: float = 1.0
    presence: float = 30.0
    presence_interval: float = 10.0
    lease: float = 3.0
    lease_renewal: float = 1.0
    channel_listen: float = 0.2
    queue_check: float = 1.0
    outlived: float = 5.0
    short_life: float = 1.0
    first_pause: float = 0.1
    last_pause: float = 5.0
    worker_grace: float = 5.0
    child_end: float = 1.0
    output_wait: float = 1.0
    output_flush: float = 0.5
    source_poll: float = 0.1
    source_stop: float = 0.5
    census_wait: float = 1.0
    supervisor_answer: float = 5.0
    stack_dump: float = 5.0
