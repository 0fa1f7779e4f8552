"""Timing: the durations that no setting changes, and the clock that deadlines are measured with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


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
        goodbye_interval: the same while the server stops and closes its clients one by one.
        cut_off: how long handlers and threads have to end after their clients were cut off.
        placement: how long a subscription waits for an event that its client has seen and this
            process has not read yet.
        log_flush: how long a stop, and the end of the process, wait for the log to be written.
        log_silence: how long a rate-limited line of the log is followed by none of its kind; then
            the log has the number of those left out.
        publish_patience: how long a thread that publishes waits for another one's work on the
            topic; then the event is queued, and a loop goes on with it.
        publish_wait: how long a thread that publishes faster than a loop sends waits for the loop.
    """

    clock: Callable[[], float] = time.monotonic
    turn_slice: float = 0.005
    steal_window: float = 1.0
    route_memory: float = 60.0
    monitor_pause: float = 1.0
    idle_thread: float = 10.0
    sweep_interval: float = 0.5
    goodbye_interval: float = 0.05
    cut_off: float = 0.5
    placement: float = 2.0
    log_flush: float = 1.0
    log_silence: float = 1.0
    publish_patience: float = 0.1
    publish_wait: float = 0.25
