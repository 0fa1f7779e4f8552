"""Connections that begin with a PROXY header, which comes before TLS and before the request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..addresses import TrustedNetworks, client_of
from ..reports.refusals import CONNECTIONS, PROXY
from .admission import Admission, unavailable
from .proxy_header import ProxyHeader, begins_with_header, decode_header
from .session import Session

if TYPE_CHECKING:
    from ..handoff.task import Task
    from .peer import Peer

ADVICE = (
    "Enable the PROXY protocol in the proxy (HAProxy: send-proxy-v2), or remove the address from "
    "the setting proxy_protocol (--proxy-protocol)."
)


class ProxiedConnections:
    """The connections of one server that begin with a PROXY header.

    Args:
        proxies: the addresses whose connections begin with a header (``proxy_protocol``).
        admission: the limits on connections.
        reader: a function that returns the session for the bytes after the header.
    """

    def __init__(
        self, proxies: TrustedNetworks, admission: Admission, reader: Callable[[Peer], Session]
    ) -> None:
        self._proxies = proxies
        self._admission = admission
        self._reader = reader

    def expect(self, client: str) -> bool:
        """Any thread: return True if connections from an address must begin with a header."""
        return self._proxies.trust(client)

    def open(self, peer: Peer, timeout: float) -> None:
        """Loop owner: read the header of a new connection, and continue with its client.

        Args:
            peer: the connection, which was admitted without regard to its address.
            timeout: seconds for the header, the TLS handshake, and the head of the request.
        """
        peer.open(HeaderReader(peer, self._continue), timeout)

    def _continue(self, peer: Peer, header: ProxyHeader, rest: memoryview) -> Task | None:
        """Loop owner: serve the client at the header's address; ``rest`` follows the header."""
        if header.address is not None:
            peer.address = header.address
            if not self._admission.enter_address(peer):
                self._turn_away(peer)
                return None
        return peer.proceed(self._reader(peer), rest)

    def _turn_away(self, peer: Peer) -> None:
        """Loop owner: close a connection beyond the limit, with a 503 unless it uses TLS."""
        peer.clients.refusals.count(503, CONNECTIONS)
        lingers = False
        if peer.scheme == "http":
            lingers = self._admission.may_linger(peer, admitted=True)
            peer.finish(unavailable(peer.clients))
        if not lingers:
            peer.abort()


class HeaderReader(Session):
    """The session that reads the PROXY header of one connection.

    Args:
        peer: the connection.
        complete: a function that the owner calls with the connection, its header and the bytes
            after it.
    """

    __slots__ = ("_complete", "_peer", "_received")

    precedes_tls = True

    def __init__(
        self, peer: Peer, complete: Callable[[Peer, ProxyHeader, memoryview], Task | None]
    ) -> None:
        self._peer = peer
        self._complete = complete
        self._received = bytearray()

    def data_received(self, data: memoryview) -> Task | None:
        """Loop owner: decode the header once complete; close the connection if it is invalid."""
        before = len(self._received)
        self._received += data
        try:
            header = decode_header(self._received)
        except ValueError as error:
            self._refuse(str(error))
            return None
        if header is None:
            return None
        self._received = bytearray()
        return self._complete(self._peer, header, data[header.size - before :])

    def _refuse(self, reason: str) -> None:
        """Close the connection without an answer, which the proxy might send to a client."""
        refusals, sender = self._peer.clients.refusals, client_of(self._peer.address)
        if begins_with_header(self._received):
            why = f"its PROXY header is invalid: {reason}"
        else:
            why = f"it is one of proxy_protocol, and has sent no PROXY header. {ADVICE}"
        refusals.count(400, PROXY)
        refusals.log(PROXY, f"disconnecting {sender}: {why}")
        self._peer.abort()

    def disconnected(self) -> None:
        """Loop owner: do nothing, because the client has not sent a request."""

    def deadline_passed(self) -> None:
        """Loop owner: close the connection, because the header was not complete in time."""
        self._peer.abort()

    @property
    def awaiting_request(self) -> bool:
        """Loop owner: True, because the request follows the header."""
        return True

    def shut_down(self) -> None:
        """Loop owner: close the connection, because no request has been received."""
        self._peer.abort()
