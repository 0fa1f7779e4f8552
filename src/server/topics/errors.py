"""Errors of topics whose logs are kept by a broker, such as Redis."""

from __future__ import annotations

from wsframe import WSFrameError


class BrokerUnavailable(WSFrameError):  # noqa: N818 - the name says enough
    """The broker does not answer, or too many events wait for the broker; a later call may succeed.

    >>> def report(topic, text):
    ...     try:
    ...         topic.publish(text)
    ...     except BrokerUnavailable:
    ...         return "try again later"
    >>> report(App().topic("news"), "hello")
    """


class BrokerRefused(WSFrameError):  # noqa: N818
    """The broker rejects an operation that topics require, and would reject it again.

    Examples for Redis: a wrong password, missing permissions, an unsupported version, cluster mode,
    or a key of the topic that holds another type. An administrator must change the configuration.

    >>> try:
    ...     published = App().topic("news").publish("hello")
    ... except BrokerRefused as error:
    ...     print("ask an administrator:", error)
    """


class EventsLost(WSFrameError):  # noqa: N818
    """Published events were not stored by the broker, and are lost.

    >>> app = App()
    >>> published = app.topic("news").publish("hello")
    >>> try:
    ...     app.close()
    ... except EventsLost as error:
    ...     print(error.count, "events are lost:", error.reason)

    Attributes:
        count: the number of lost events.
        reason: the error that lost the last of them.
    """

    def __init__(self, count: int, reason: str) -> None:
        events = "event is" if count == 1 else "events are"
        super().__init__(f"{count} published {events} lost: {reason}")
        self.count = count
        self.reason = reason


#: The expected errors of a broker. Their text is complete, so the log needs no traceback.
BROKER_ERRORS = (BrokerUnavailable, BrokerRefused, EventsLost)
