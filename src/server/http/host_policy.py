"""Whom a request is for, and whose page sends it: Host and Origin.

Where they are refused, the log gets advice: most often a proxy has changed the request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from wsframe import HandshakeError
from wsframe.fields import Fields
from wsframe.origins import check_origin, split_host

from ..addresses import client_of
from ..hosts import LOCAL, Hosts
from ..reports.refusals import HOST, MALFORMED, ORIGIN, UPGRADE
from .proxies import FORWARDING, Proxies
from .refusals import RefusalError, quoted
from .request import Request, forward, replace_host

UPGRADE_BY_NGINX = (
    "nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    'proxy_set_header Connection "upgrade";'
)
NGINX = "nginx: proxy_set_header Host $http_host;"


class HostPolicy:
    """The hosts of a server, by the word of the proxies that it trusts.

    Args:
        proxies: those that are trusted.
        hosts: those that are served.
    """

    def __init__(self, proxies: Proxies, hosts: Hosts) -> None:
        self._proxies = proxies
        self._hosts = hosts

    def check_host(self, request: Request, fields: Fields) -> Fields:
        """Any thread: the fields with the host that the client has addressed, which is served.

        Raises:
            HandshakeError: 421; it is not. 400; what a trusted proxy has sent is malformed.
        """
        fields = replace_host(request, fields)
        host = fields.single("host") or ""
        if self._proxies.trust(request.client):
            self._note_forwarding(request, fields)
            fields = replace_host(request, fields)
        addressed = fields.single("host") or ""
        if not self._hosts.admit(addressed):
            raise self._misdirected(addressed)
        # A page can send X-Forwarded-Host, but not another Host than its own.
        if host != addressed and not (self._hosts.admit(host) or LOCAL.admit(host)):
            raise self._misdirected(host)
        return fields

    def check_origin(
        self, request: Request, fields: Fields, origins: Sequence[str] | Literal["*"]
    ) -> str | None:
        """Any thread: as :func:`wsframe.origins.check_origin`, with advice in the error."""
        try:
            return check_origin(fields, origins)
        except HandshakeError as error:
            if error.status != 403:
                raise
            advice = self._advice_on_origin(request, fields)
            raise RefusalError(403, error.reason, kind=ORIGIN, advice=advice) from None

    def _note_forwarding(self, request: Request, fields: Fields) -> None:
        """Set the client, scheme and host of a request to those that trusted proxies report."""
        try:
            hop = self._proxies.resolve(fields)
        except HandshakeError as error:
            headers = request.headers
            values = [(name, ", ".join(headers.get_all(name))) for name in FORWARDING]
            sent = ", ".join(f'{name} "{quoted(value)}"' for name, value in values if value)
            advice = f"The trusted proxy {client_of(request.address)} has sent {sent}."
            raise RefusalError(error.status, error.reason, kind=MALFORMED, advice=advice) from None
        forward(request, hop)

    def _misdirected(self, host: str) -> RefusalError:
        """The answer to a request for another host (RFC 9110 section 15.5.20)."""
        name = quoted(_name_of(host))
        advice = (
            f'The host "{name}" is none of those that are served. If it is a name of this server, '
            f'add "{name}" to the setting hosts (--hosts). If it is what a proxy calls this '
            f"server, let the proxy pass on the Host that the browser has sent ({NGINX}), and add "
            "that host."
        )
        if self._hosts.by_default:
            advice += " By default a server on loopback serves only localhost and addresses."
        return RefusalError(421, "this host is not served here", kind=HOST, advice=advice)

    def _advice_on_origin(self, request: Request, fields: Fields) -> str:
        """What to change if the page may connect: the proxy, or the settings."""
        origin, host = fields.single("origin") or "", fields.single("host") or ""
        authority = origin.partition("://")[2]
        name = _name_of(authority)
        if name and name == _name_of(host):
            cause = (
                f'The Origin and the Host "{quoted(host)}" differ in the port. If a proxy has left '
                f"the port out, let it pass on the Host as the browser has sent it ({NGINX})"
            )
        else:
            cause = (
                f'The Origin is not that of the Host "{quoted(host)}". If a proxy has put its own '
                f"name for this server there, let it pass on the Host that the browser has sent "
                f"({NGINX})"
            )
        forwarded = fields.items("x-forwarded-host") or fields.items("forwarded")
        sender = client_of(request.address)
        if forwarded and not self._proxies.trust(sender):
            cause += (
                f"; X-Forwarded-Host and Forwarded do not count, because {sender} is not one of "
                "trusted_proxies (--trusted-proxy)"
            )
        if name and not self._hosts.admit(authority):
            cause += f'; "{quoted(name)}" must then be one of hosts (--hosts), too'
        return (
            f'{cause}. If it is a page of another site that may connect, add "{quoted(origin)}" '
            "to the origins of the route."
        )


def with_proxy_advice(error: HandshakeError, fields: Fields) -> HandshakeError:
    """Any thread: the refusal of an upgrade request, with advice if a proxy has spoilt it."""
    if error.status != 426 or not fields.items("sec-websocket-key"):
        return error
    advice = (
        "It has a Sec-WebSocket-Key, but is no upgrade in HTTP/1.1. If a proxy stands before the "
        f"server, let it pass on the upgrade ({UPGRADE_BY_NGINX})."
    )
    return RefusalError(426, error.reason, error.headers, kind=UPGRADE, advice=advice)


def _name_of(host: str) -> str:
    """A host without its port."""
    parts = split_host(host)
    return host if parts is None else parts[0]
