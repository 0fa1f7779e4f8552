"""The checks of the Host and the Origin of a request.

The log line of a refusal contains advice, because most refusals are caused by a proxy's
configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wsframe import HandshakeError, nginx
from wsframe.fields import Fields
from wsframe.origins import check_origin, split_host

from ..addresses import UNIX, client_of, parse_address
from ..hosts import LOCAL, Hosts
from ..reports.loggers import log
from ..reports.refusals import HOST, MALFORMED, ORIGIN, UPGRADE
from .proxies import FORWARDING, Proxies
from .refusals import RefusalError, quoted
from .request import Request, forward, replace_host

UPGRADE_BY_NGINX = f"nginx: {' '.join(nginx.UPGRADE)}"
HOST_BY_NGINX = f"nginx: {nginx.HOST}"


class HostPolicy:
    """The hosts and proxies that one server accepts.

    Without ``trusted_proxies`` all clients of a proxy have one address, which nothing shows until a
    limit on one address is reached. So the first request with ``X-Forwarded-For`` from this machine
    or a private network is logged.

    Args:
        proxies: the trusted proxies.
        hosts: the hosts that are served.
        origins_setting: the place of the setting origins, for the log.
    """

    def __init__(
        self, proxies: Proxies, hosts: Hosts, origins_setting: str = "the origins of the route"
    ) -> None:
        self._proxies = proxies
        self._hosts = hosts
        self._origins_setting = origins_setting
        self._proxy_noted = False  # several threads may log before one of them sets it

    def check_host(self, request: Request, fields: Fields) -> Fields:
        """Any thread: check that the host of a request is served.

        Returns:
            The headers; ``Host`` is the host that the client has addressed.

        Raises:
            HandshakeError: 421, because the host is not served; or 400, because the headers of a
                trusted proxy are malformed.
        """
        fields = replace_host(request, fields)
        host = fields.single("host") or ""
        if self._proxies.trust(request.client):
            self._note_forwarding(request, fields)
            fields = replace_host(request, fields)
        elif not self._proxy_noted and (clients := fields.items("x-forwarded-for")):
            self._note_untrusted(client_of(request.address), clients[-1])
        addressed = fields.single("host") or ""
        if not self._hosts.admit(addressed):
            raise self._misdirected(addressed)
        # A page can set X-Forwarded-Host to any host, but not the Host header.
        if host != addressed and not (self._hosts.admit(host) or LOCAL.admit(host)):
            raise self._misdirected(host)
        return fields

    def check_origin(
        self, request: Request, fields: Fields, origins: Sequence[str] | Literal["*"]
    ) -> str | None:
        """Any thread: call :func:`wsframe.origins.check_origin`, and add advice to its error."""
        try:
            return check_origin(fields, origins)
        except HandshakeError as error:
            if error.status != 403:
                raise
            advice = self._advice_on_origin(request, fields)
            raise RefusalError(403, error.reason, kind=ORIGIN, advice=advice) from None

    def _note_forwarding(self, request: Request, fields: Fields) -> None:
        """Set the client, scheme and host of a request to the values of trusted proxies."""
        try:
            hop = self._proxies.resolve(fields)
        except HandshakeError as error:
            headers = request.headers
            values = [(name, ", ".join(headers.get_all(name))) for name in FORWARDING]
            sent = ", ".join(f'{name} "{quoted(value)}"' for name, value in values if value)
            advice = f"The trusted proxy {client_of(request.address)} sent {sent}."
            raise RefusalError(error.status, error.reason, kind=MALFORMED, advice=advice) from None
        forward(request, hop)

    def _note_untrusted(self, sender: str, client: str) -> None:
        """Log once that a proxy is not trusted.

        A public address is that of any client. A middleware that has replaced the proxy's address
        by that of the client has taken it from the header.
        """
        if sender == client or (sender != UNIX and not parse_address(sender).is_private):
            return
        self._proxy_noted = True
        log.warning(
            "a request from %s has the header X-Forwarded-For, which is ignored: if a proxy has "
            'sent it, add "%s" to trusted_proxies (--trusted-proxy); until then all clients of the '
            "proxy count as one address",
            sender,
            sender,
        )

    def _misdirected(self, host: str) -> RefusalError:
        """Return the answer to a request for an unknown host (421, RFC 9110 section 15.5.20)."""
        name = quoted(_name_of(host))
        advice = (
            f'The host "{name}" is not served. If it is a name of this server, add "{name}" to '
            "the setting hosts (--hosts). If a proxy uses this name for the server, have the proxy "
            f"pass on the Host of the browser ({HOST_BY_NGINX}), and add that host."
        )
        if self._hosts.by_default:
            advice += " By default a server on loopback serves only localhost and addresses."
        return RefusalError(421, "this server does not serve this host", kind=HOST, advice=advice)

    def _advice_on_origin(self, request: Request, fields: Fields) -> str:
        """Return the reason why an Origin is refused, and the change that would allow the page."""
        origin, host = fields.single("origin") or "", fields.single("host") or ""
        authority = origin.partition("://")[2]
        name = _name_of(authority)
        if name and name == _name_of(host):
            cause = (
                f'The Origin and the Host "{quoted(host)}" differ in the port. If a proxy has '
                f"removed the port, have it pass on the Host of the browser ({HOST_BY_NGINX})"
            )
        else:
            cause = (
                f'The Origin does not match the Host "{quoted(host)}". If a proxy has replaced '
                f"the Host, have it pass on the Host of the browser ({HOST_BY_NGINX})"
            )
        forwarded = fields.items("x-forwarded-host") or fields.items("forwarded")
        sender = client_of(request.address)
        if forwarded and not self._proxies.trust(sender):
            cause += (
                f"; X-Forwarded-Host and Forwarded are ignored, because {sender} is not one of "
                "trusted_proxies (--trusted-proxy)"
            )
        if name and not self._hosts.admit(authority):
            cause += f'; "{quoted(name)}" must then also be one of hosts (--hosts)'
        return (
            f'{cause}. To allow this page of another site, add "{quoted(origin)}" to '
            f"{self._origins_setting}."
        )


def with_proxy_advice(error: HandshakeError, fields: Fields) -> HandshakeError:
    """Any thread: add advice to the refusal of an upgrade request that a proxy has changed."""
    if error.status != 426 or not fields.items("sec-websocket-key"):
        return error
    advice = (
        "The request has a Sec-WebSocket-Key, but is not an upgrade request in HTTP/1.1. If there "
        f"is a proxy in front of the server, have it pass on the upgrade ({UPGRADE_BY_NGINX})."
    )
    return RefusalError(426, error.reason, error.headers, kind=UPGRADE, advice=advice)


def _name_of(host: str) -> str:
    """Return a host without its port."""
    parts = split_host(host)
    return host if parts is None else parts[0]
