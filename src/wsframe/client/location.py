"""Where a URL leads: the host, the port, and what a request names of it."""

from __future__ import annotations

import re
import socket
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from ..fields import Headers, pairs

CONTROL_OR_SPACE = re.compile(r"[\x00-\x20\x7f]")
CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
# RFC 3986 section 3.2. A backslash stands nowhere: browsers take it for a slash, urlsplit does not.
AUTHORITY = re.compile(
    r"(?:(?P<userinfo>[^\\]*)@)?"
    r"(?:\[(?P<address>[^\[\]\\]*)\]|(?P<name>[^\[\]:@\\]+))"
    r"(?::(?P<port>[0-9]{0,5}))?"
)
LABEL = r"[a-z0-9_-]{1,63}"
NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*\.?")
MAX_NAME = 253  # without the dot at its end
# Such a name is an IPv4 address in every browser (WHATWG URL section 3.5), and to the resolver.
ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
ZONE = re.compile(r"[!-$&-~]{1,16}")  # no system has longer names of interfaces


@dataclass(frozen=True, slots=True)
class Location:
    """What a URL names.

    Attributes:
        secure: whether the connection uses TLS.
        host: a name in ASCII and lower case, or an address; an IPv6 address without brackets.
        zone: of an IPv6 address, which has a meaning on this machine only (RFC 4007); or "".
        port: the URL's, or the scheme's own.
        target: the path and the query, as in the URL.
        authorization: the ``Authorization`` header for the URL's user and password; None if the
            URL has neither.
    """

    secure: bool
    host: str
    zone: str
    port: int
    target: str
    authorization: str | None

    @classmethod
    def of(cls, url: str, schemes: Mapping[str, bool]) -> Location:
        """Read a URL.

        Args:
            url: without a fragment (RFC 6455 section 3).
            schemes: the schemes that are allowed, each with whether it uses TLS.

        Raises:
            ValueError: the URL is malformed, or of another scheme.
            ImportError: the host is not in ASCII, and the extra ``client`` is not installed.
        """
        if CONTROL_OR_SPACE.search(url):  # which urlsplit would remove
            raise ValueError(f"a URL must not contain spaces or control characters: {url!r}")
        if "#" in url:
            raise ValueError(f"this URL must not have a fragment: {url!r}")
        parts = urlsplit(url)
        if parts.scheme not in schemes:
            raise ValueError(f"a URL must begin with {' or '.join(schemes)}: {url!r}")
        authority = AUTHORITY.fullmatch(parts.netloc)
        if authority is None:
            raise ValueError(f"a URL must have a host, and a port of digits if any: {url!r}")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not target.isascii():
            raise ValueError(f"a path and a query must be in ASCII, percent-encoded: {target!r}")
        secure = schemes[parts.scheme]
        port = int(authority["port"] or (443 if secure else 80))
        if port > 65535:
            raise ValueError(f"a port must be at most 65535, not {port}")
        if authority["name"] is None:
            host, zone = _read_address(authority["address"])
        else:
            host, zone = _read_name(authority["name"]), ""
        authorization = _read_userinfo(authority["userinfo"] or "")
        return cls(secure, host, zone, port, target, authorization)

    @property
    def origin(self) -> tuple[bool, str, str, int]:
        """What two resources that may share secrets have in common (RFC 6454 section 4)."""
        return self.secure, self.host, self.zone, self.port

    @property
    def authority(self) -> str:
        """The value of the ``Host`` header: no zone (RFC 6874 section 4), no default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def node(self) -> str:
        """What the system's name lookup is asked for."""
        return f"{self.host}%{self.zone}" if self.zone else self.host

    @property
    def server_name(self) -> str:
        """The name for TLS, without a dot at its end (RFC 6066 section 3), or the address."""
        return self.host.removesuffix(".")

    def with_authorization(self, headers: Headers) -> list[tuple[str, str]]:
        """The headers, and the URL's ``Authorization`` unless they have one."""
        fields = list(pairs(headers))
        if self.authorization is not None and not any(
            name.lower() == "authorization" for name, _ in fields
        ):
            fields.append(("Authorization", self.authorization))
        return fields


def _read_name(text: str) -> str:
    """Return a host name in ASCII and lower case, or an IPv4 address.

    Raises:
        ValueError: the text is neither.
        ImportError: as :meth:`Location.of`.
    """
    try:
        name = unquote(text, errors="strict")  # RFC 3986 section 3.2.2
    except UnicodeDecodeError:
        raise ValueError(f"not a host name, because it is not valid UTF-8: {text!r}") from None
    if not name.isascii() and len(name) <= MAX_NAME:  # each character takes at least one in ASCII
        name = _to_ascii(name)
    name = name.lower()
    if not NAME.fullmatch(name) or len(name.removesuffix(".")) > MAX_NAME:
        raise ValueError(f"not a host name: {text!r}")
    if not ENDS_IN_A_NUMBER.fullmatch(name):
        return name
    try:
        return socket.inet_ntoa(socket.inet_aton(name.removesuffix(".")))
    except OSError:
        raise ValueError(f"a host that ends in a number must be an address: {text!r}") from None


def _to_ascii(name: str) -> str:
    """Return a name as DNS has it: IDNA 2008, after the mappings of UTS 46 (non-transitional).

    The standard library's codec is IDNA 2003, in which "faß" becomes "fass", a name of its own.
    """
    try:
        import idna
    except ImportError as error:
        raise ImportError(
            f"the host {name!r} is not in ASCII, which needs idna: pip install 'wsframe[client]'"
        ) from error
    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError as error:
        raise ValueError(f"not a host name: {name!r}: {error}") from None


def _read_address(text: str) -> tuple[str, str]:
    """Return an IPv6 address and its zone, or "".

    Raises:
        ValueError: the address or the zone is malformed.
    """
    address, percent, zone = text.partition("%")
    # RFC 6874 section 2: the "%" is written as "%25"; many tools write it as it is.
    if zone.startswith("25") and len(zone) > 2:
        zone = zone[2:]
    if percent and not ZONE.fullmatch(zone):
        raise ValueError(f"an address with a malformed zone: {text!r}")
    return IPv6Address(address).compressed, zone


def _read_userinfo(userinfo: str) -> str | None:
    """Return the ``Authorization`` header for a user and a password (RFC 7617 section 2).

    Raises:
        ValueError: the header cannot carry them.
    """
    user, _, password = userinfo.partition(":")
    if not (user or password):
        return None  # as in a browser
    name, secret = unquote_to_bytes(user), unquote_to_bytes(password)
    if b":" in name or CONTROL.search(name + secret):
        raise ValueError(
            "a URL's user must not contain a colon, nor user or password a control character"
        )
    return f"Basic {b64encode(name + b':' + secret).decode()}"
