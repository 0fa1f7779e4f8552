"""Findings, and the change of a proxy's configuration that each of them requires."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


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

    Attributes:
        what: the change in general, one sentence.
        nginx: lines of nginx's configuration, and remarks.
        caddy: lines of a Caddyfile, and remarks.
        cloudflare: settings of Cloudflare; empty if Cloudflare cannot be the cause.
    """

    what: str
    nginx: tuple[str, ...]
    caddy: tuple[str, ...]
    cloudflare: tuple[str, ...] = ()


NAMES = {"nginx": "nginx", "caddy": "Caddy", "cloudflare": "Cloudflare"}

REMEDIES = {
    "upgrade": Remedy(
        "Have the proxy forward the upgrade.",
        nginx=(
            "proxy_http_version 1.1;",
            "proxy_set_header Upgrade $http_upgrade;",
            'proxy_set_header Connection "upgrade";',
        ),
        caddy=("remove header_up for Upgrade and Connection; reverse_proxy forwards both",),
        cloudflare=("Network > WebSockets: on",),
    ),
    "host": Remedy(
        "Have the proxy forward the Host of the browser.",
        nginx=("proxy_set_header Host $http_host;",),
        caddy=("remove header_up Host; reverse_proxy forwards the Host",),
        cloudflare=("Rules > Origin Rules: no Host header override",),
    ),
    "hosts": Remedy(
        "Add this host to the setting hosts of the server (--hosts), or have the proxy forward the "
        "Host of the browser.",
        nginx=("proxy_set_header Host $http_host;",),
        caddy=("remove header_up Host; reverse_proxy forwards the Host",),
        cloudflare=("Rules > Origin Rules: no Host header override",),
    ),
    "port": Remedy(
        "Have the proxy forward the Host with its port.",
        nginx=("proxy_set_header Host $http_host;   # in the place of $host, which has no port",),
        caddy=("remove header_up Host {host}, which has no port; reverse_proxy forwards the Host",),
    ),
    "origin": Remedy(
        "Unless every site may connect: check the Origin in the server, and have the proxy "
        "forward it.",
        nginx=("remove proxy_set_header Origin ...;",),
        caddy=("remove header_up -Origin, or header_up Origin ...",),
        cloudflare=("Rules > Transform Rules: no rule that changes Origin",),
    ),
    "buffering": Remedy(
        "Have the proxy forward each event at once.",
        nginx=(
            "proxy_buffering off;",
            "remove proxy_ignore_headers X-Accel-Buffering;",
        ),
        caddy=("flush_interval -1   # in reverse_proxy",),
        cloudflare=("check that the response has Content-Type: text/event-stream",),
    ),
    "compression": Remedy(
        "Leave event streams out of the proxy's compression.",
        nginx=("gzip_types ...;   # without text/event-stream and *", "gzip off;"),
        caddy=("encode gzip { match { not header Content-Type text/event-stream* } }",),
        cloudflare=("Rules > Compression Rules: no compression for this path",),
    ),
    "silence": Remedy(
        "Raise the proxy's limit of silence above the interval of pings and heartbeats.",
        nginx=("proxy_read_timeout 1h;", "proxy_send_timeout 1h;"),
        caddy=(
            "remove read_timeout and write_timeout of transport http",
            "remove stream_timeout of reverse_proxy",
        ),
        cloudflare=("ping_interval and heartbeat of the server below 100 s, its fixed limit",),
    ),
    "expired": Remedy(
        "Renew the certificate, and reload the proxy.",
        nginx=("ssl_certificate FILE;   # renew the file, then run: nginx -s reload",),
        caddy=("tls CERT KEY   # renew the files, or remove the line: Caddy renews by itself",),
        cloudflare=("SSL/TLS > Edge Certificates: an active certificate",),
    ),
    "expires": Remedy(
        "Renew the certificate in time, and reload the proxy.",
        nginx=("ssl_certificate FILE;   # renew the file, then run: nginx -s reload",),
        caddy=("tls CERT KEY   # renew the files, or remove the line: Caddy renews by itself",),
    ),
    "name": Remedy(
        "Use a certificate for this host.",
        nginx=(
            "server_name HOST;   # the server block of this host",
            "ssl_certificate FILE;   # its certificate",
        ),
        caddy=("HOST { ... }   # the site's address; Caddy gets its certificate by itself",),
        cloudflare=("SSL/TLS > Edge Certificates: a certificate that covers this host",),
    ),
    "chain": Remedy(
        "Send the intermediate certificates, too. A private authority must be passed as --cacert.",
        nginx=("ssl_certificate fullchain.pem;   # the certificate, then the intermediate ones",),
        caddy=("tls fullchain.pem KEY   # the certificate, then the intermediate ones",),
    ),
    "self-signed": Remedy(
        "Browsers trust only certificates of public authorities. Elsewhere pass this certificate "
        "as --cacert.",
        nginx=("ssl_certificate FILE;   # a certificate of a public authority",),
        caddy=("remove tls internal, or tls CERT KEY: Caddy gets a certificate by itself",),
    ),
    "server": Remedy(
        "Start the server, and let the proxy connect to its address or its unix socket.",
        nginx=(
            "proxy_pass http://127.0.0.1:9292;   # address and port of the server",
            "proxy_pass http://unix:PATH;   # its user needs access: unix_mode, unix_group",
        ),
        caddy=(
            "reverse_proxy 127.0.0.1:9292   # address and port of the server",
            "reverse_proxy unix/PATH   # its user needs access: unix_mode, unix_group",
        ),
        cloudflare=("520 to 526: check the origin server, its port and its certificate",),
    ),
    "route": Remedy(
        "Use the path of a WebSocket or an event stream, and let the proxy forward it to the "
        "server, unchanged.",
        nginx=(
            "location PATH { proxy_pass http://127.0.0.1:9292; ... }   # no path after the port",
        ),
        caddy=("reverse_proxy PATH 127.0.0.1:9292   # handle, not handle_path",),
    ),
    "redirect": Remedy(
        "Use the URL of the redirect. WebSockets do not follow redirects.",
        nginx=("remove return 301 or rewrite for this path, or use wss:// in the page",),
        caddy=("remove redir for this path, or use wss:// in the page",),
        cloudflare=("use wss:// in the page, or SSL/TLS > Always Use HTTPS: off",),
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
