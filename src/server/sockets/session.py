"""Session: the protocol that a connection currently uses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from ..handoff.task import Task


class Session(ABC):
    """The protocol that a connection currently uses. Only the owner calls its methods.

    Attributes:
        precedes_tls: True if its data comes before the TLS handshake.
    """

    __slots__ = ()

    precedes_tls: ClassVar[bool] = False

    @abstractmethod
    def data_received(self, data: memoryview) -> Task | None:
        """Loop owner: process received data.

        Args:
            data: a view of the loop's buffer, which is reused after the call.

        Returns:
            The task whose turn is due because of the data, if any.
        """

    def messages_received(
        self, messages: list[str | bytes], rest: memoryview | None
    ) -> Task | None:
        """Loop owner: process messages that the loop has decoded, because ``peer.limit`` is set.

        Args:
            messages: the messages.
            rest: the data after the messages, a view of the round's buffer; or None.

        Returns:
            The task whose turn is due because of the messages, if any.
        """
        return None

    @abstractmethod
    def disconnected(self) -> None:
        """Loop owner, as the last call: end the session, because the connection is closed."""

    @abstractmethod
    def deadline_passed(self) -> None:
        """Loop owner: handle the passed deadline that the session has set on the peer."""

    @abstractmethod
    def shut_down(self) -> None:
        """Loop owner: close the connection as the protocol requires, because the server stops."""

    def close_for_good(self, code: int, reason: str) -> None:  # noqa: B027 - nothing is open
        """Loop owner: close for good, without reconnect, because the identity was closed."""

    def expire(self) -> None:
        """Loop owner: close so that the client reconnects, because of ``max_connection_age``."""
        self.shut_down()

    @property
    def awaiting_request(self) -> bool:
        """Loop owner: True until a complete request has been received."""
        return False

    def after_fork(self) -> None:  # noqa: B027 - most sessions have no handler
        """The child of a fork: end the connection for a handler that continues in the child."""

    def drained(self) -> None:  # noqa: B027 - most sessions have nothing to do then
        """Loop owner: continue sending, because the unsent data fell below the limit."""

    def sent_all(self) -> None:  # noqa: B027 - most sessions do not request it
        """Loop owner: continue after all data was sent; requested with ``notify_when_sent``."""


class NoSession(Session):
    """The placeholder for a peer's session, before its first session and after its last session.

    It discards received data.
    """

    __slots__ = ()

    def data_received(self, data: memoryview) -> Task | None:
        """Loop owner: discard the data."""
        return None

    def disconnected(self) -> None:
        """Loop owner: do nothing."""

    def deadline_passed(self) -> None:
        """Loop owner: do nothing."""

    def shut_down(self) -> None:
        """Loop owner: do nothing."""


NO_SESSION = NoSession()
