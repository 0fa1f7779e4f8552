"""Findings, and the change of a proxy's configuration that each of them requires."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from wsframe import nginx


class Grade(StrEnum):
    """The grade of a finding: a success, a fact, or a problem."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        grade: the grade of the finding.
        text: the fact that was observed.
        remedy: the key of the change in ``REMEDIES``; "" without one.
    """

    grade: Grade
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Remedy:
    """A change, in the terms of each proxy.

    A line of nginx or Caddy belongs to the configuration, in the place of an existing line for the
    same purpose. ``remove`` begins a line that names directives to remove, and ``or`` begins an
    alternative to the lines before it. ``#`` begins a remark. PATH and HOST are those of the URL.
    SOCKET, CERT, KEY and CHAIN are files.

    Attributes:
        what: the change in general, one sentence.
        nginx: lines of nginx's configuration.
        caddy: lines of a Caddyfile.
        cloudflare: settings of Cloudflare; empty if Cloudflare cannot be the cause.
    """

    what: str
    nginx: tuple[str, ...]
    caddy: tuple[str, ...]
    cloudflare: tuple[str, ...] = ()


NAMES = {"nginx": "nginx", "caddy": "Caddy", "cloudflare": "Cloudflare"}

ACCESS = "# its user needs access: unix_mode, unix_group"

RENEW = Remedy(
    "Renew the certificate, and reload the proxy.",
    nginx=(
        "ssl_certificate CERT;   # renew both files, then run: nginx -s reload",
        "ssl_certificate_key KEY;",
    ),
    caddy=(
        "tls CERT KEY   # renew both files",
        "or remove tls   # Caddy then renews its certificate by itself",
    ),
    cloudflare=("SSL/TLS > Edge Certificates: an active certificate",),
)

FORWARD_HOST = Remedy(
    "Have the proxy forward the Host of the browser.",
    nginx=(nginx.HOST,),
    caddy=("remove header_up and request_header for Host   # reverse_proxy forwards the Host",),
    cloudflare=("Rules > Origin Rules: no Host header override",),
)

REMEDIES = {
    "upgrade": Remedy(
        "Have the proxy forward the upgrade.",
        nginx=nginx.UPGRADE,
        caddy=(
            "remove header_up and request_header for Upgrade and Connection   "
            "# reverse_proxy forwards both",
        ),
        cloudflare=("Network > WebSockets: on",),
    ),
    "host": FORWARD_HOST,
    "hosts": replace(
        FORWARD_HOST,
        what="Add this host to the setting hosts of the server (--hosts), or have the proxy "
        "forward the Host of the browser.",
    ),
    "port": Remedy(
        "Have the proxy forward the Host with its port.",
        nginx=(f"{nginx.HOST}   # in the place of $host, which has no port",),
        caddy=("remove header_up and request_header for Host   # {host} has no port",),
    ),
    "origin": Remedy(
        "Unless every site may connect: check the Origin in the server, and have the proxy "
        "forward it.",
        nginx=("remove proxy_set_header Origin",),
        caddy=("remove header_up and request_header for Origin",),
        cloudflare=("Rules > Transform Rules: no rule that changes Origin",),
    ),
    "buffering": Remedy(
        "Have the proxy forward each event at once.",
        nginx=(
            "proxy_buffering off;",
            "or remove proxy_ignore_headers X-Accel-Buffering   # if the server sends this header",
        ),
        caddy=(
            "remove buffer_responses   # in reverse_proxy, before Caddy 2.8",
            "remove response_buffers   # in reverse_proxy, Caddy 2.6.4 and later",
        ),
        cloudflare=("check that the response has Content-Type: text/event-stream",),
    ),
    "compression": Remedy(
        "Leave event streams out of the proxy's compression.",
        nginx=(
            "gzip off;   # in the location of the stream",
            "or gzip_types text/css;   # any types except text/event-stream and *",
        ),
        caddy=("@others not path PATH", "encode @others gzip"),
        cloudflare=("Rules > Compression Rules: no compression for this path",),
    ),
    "silence": Remedy(
        "Raise the proxy's limit of silence above the interval of pings and heartbeats.",
        nginx=("proxy_read_timeout 1h;",),
        caddy=(
            "remove read_timeout   # in transport http",
            "remove stream_timeout   # in reverse_proxy, Caddy 2.7 and later",
            "remove write   # in the timeouts of servers, which limit a whole response",
        ),
        cloudflare=("ping_interval and heartbeat of the server below 100 s, its fixed limit",),
    ),
    "expired": RENEW,
    "expires": replace(RENEW, what="Renew the certificate in time, and reload the proxy."),
    "name": Remedy(
        "Use a certificate for this host.",
        nginx=(
            "server_name HOST;   # in the server block of this host",
            "ssl_certificate CERT;   # a certificate for this host",
            "ssl_certificate_key KEY;",
        ),
        caddy=(
            "tls CERT KEY   # a certificate for this host",
            "or remove tls   # Caddy gets a certificate for the address of the site by itself",
        ),
        cloudflare=("SSL/TLS > Edge Certificates: a certificate that covers this host",),
    ),
    "chain": Remedy(
        "Send the intermediate certificates, too. A private authority must be passed as --cacert.",
        nginx=("ssl_certificate CHAIN;   # the certificate, then the intermediate ones",),
        caddy=("tls CHAIN KEY   # the certificate, then the intermediate ones",),
    ),
    "self-signed": Remedy(
        "Browsers trust only certificates of public authorities. Elsewhere pass this certificate "
        "as --cacert.",
        nginx=(
            "ssl_certificate CERT;   # a certificate of a public authority",
            "ssl_certificate_key KEY;",
        ),
        caddy=(
            "tls CERT KEY   # a certificate of a public authority",
            "or remove tls   # Caddy gets such a certificate by itself",
        ),
    ),
    "server": Remedy(
        "Start the server, and let the proxy connect to its address or its unix socket.",
        nginx=(
            "proxy_pass http://127.0.0.1:9292;   # address and port of the server",
            f"or proxy_pass http://unix:SOCKET;   {ACCESS}",
        ),
        caddy=(
            "reverse_proxy 127.0.0.1:9292   # address and port of the server",
            f"or reverse_proxy unix/SOCKET   {ACCESS}",
        ),
        cloudflare=("520 to 526: check the origin server, its port and its certificate",),
    ),
    "full": Remedy(
        "Raise the limit of the server (max_connections) or of the proxy, or start the server.",
        nginx=("remove limit_conn and limit_req",),
        caddy=(
            "remove health_uri   # in reverse_proxy, if the server does not answer it with 200",
        ),
        cloudflare=("Security > WAF > Rate limiting rules: no rule for this path",),
    ),
    "route": Remedy(
        "Use the path of a WebSocket or an event stream, and let the proxy forward it to the "
        "server, unchanged.",
        nginx=(
            "remove rewrite   # if it changes this path",
            "location PATH {",
            "    proxy_pass http://127.0.0.1:9292;   # no path after the port",
            *(f"    {line}" for line in (*nginx.UPGRADE, nginx.HOST)),
            "}",
        ),
        caddy=(
            "remove handle_path, rewrite and uri   # if they change this path",
            "handle PATH {",
            "    reverse_proxy 127.0.0.1:9292",
            "}",
        ),
    ),
    "redirect": Remedy(
        "Use the URL of the redirect, such as wss:// in the page. WebSockets do not follow "
        "redirects.",
        nginx=("remove return and rewrite   # if they redirect this path",),
        caddy=("remove redir   # if it redirects this path",),
        cloudflare=("SSL/TLS > Edge Certificates > Always Use HTTPS: off",),
    ),
}


def remedy_lines(key: str, proxy: str) -> Iterator[str]:
    """Yield the lines of a remedy.

    Args:
        key: the key of the remedy.
        proxy: the proxy that was recognized, a key of ``NAMES``; "" to print all.
    """
    remedy = REMEDIES[key]
    yield remedy.what
    for name in [proxy] if proxy else NAMES:
        lines: tuple[str, ...] = getattr(remedy, name)
        for number, line in enumerate(lines):
            title = "" if number else f"{NAMES[name]}:"
            yield f"{title:<11} {line}"
