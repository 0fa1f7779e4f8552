"""Errors of topics whose logs are in a Redis."""

from __future__ import annotations

from wsframe import WSFrameError


class RedisUnavailable(WSFrameError):  # noqa: N818 - the name says enough
    """Redis does not answer, or too many events wait for it already; a later call may succeed."""


class RedisRefused(WSFrameError):  # noqa: N818
    """Redis refuses what topics need, and would refuse it again.

    Reasons are, for example: a wrong password, missing permissions, a Redis that is too old or
    runs in cluster mode, or a key of the topic that holds something else. Somebody has to change
    the configuration.
    """


class EventsLost(WSFrameError):  # noqa: N818
    """Published events did not get into Redis, and never will.

    Attributes:
        count: how many.
        reason: why the last of them.
    """

    def __init__(self, count: int, reason: str) -> None:
        super().__init__(f"{count} published events are lost: {reason}")
        self.count = count
        self.reason = reason
