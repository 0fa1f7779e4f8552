"""The parts of a URL: the host, the port, and the target of a request."""

from __future__ import annotations

import re
import socket
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from ..headers import Headers, pairs

CONTROL_OR_SPACE = re.compile(r"[\x00-\x20\x7f]")
CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
# The authority of a URL (RFC 3986 section 3.2). A backslash is not allowed, because browsers treat
# it as a slash, and urlsplit does not.
AUTHORITY = re.compile(
    r"(?:(?P<userinfo>[^\\]*)@)?"
    r"(?:\[(?P<address>[^\[\]\\]*)\]|(?P<name>[^\[\]:@\\]+))"
    r"(?::(?P<port>[0-9]{0,5}))?"
)
LABEL = r"[a-z0-9_-]{1,63}"
NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*\.?")
MAX_NAME = 253  # the maximum length of a host name in characters, without a trailing dot
# A name that browsers (WHATWG URL section 3.5) and the resolver treat as an IPv4 address.
ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
ZONE = re.compile(r"[!-$&-~]{1,16}")  # no system has an interface with a longer name


@dataclass(frozen=True, slots=True)
class Location:
    """The parts of a URL.

    Attributes:
        secure: True if the connection uses TLS.
        host: a name in ASCII and lower case, or an address; an IPv6 address without brackets.
        zone: the zone of an IPv6 address, valid only on this machine (RFC 4007); or "".
        port: the port of the URL, or the default port of the scheme.
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
        """Parse a URL.

        Args:
            url: a URL without a fragment (RFC 6455 section 3).
            schemes: the allowed schemes; the value is True if the scheme uses TLS.

        Raises:
            ValueError: the URL is malformed, or has another scheme.
            ImportError: the host is not in ASCII, and the extra ``client`` is not installed.
        """
        if CONTROL_OR_SPACE.search(url):  # urlsplit would remove these characters
            raise ValueError(f"a URL must not contain spaces or control characters: {url!r}")
        if "#" in url:
            raise ValueError(f"this URL must not have a fragment: {url!r}")
        parts = urlsplit(url)
        if parts.scheme not in schemes:
            raise ValueError(f"a URL must begin with {' or '.join(schemes)}: {url!r}")
        authority = AUTHORITY.fullmatch(parts.netloc)
        if authority is None:
            raise ValueError(
                f"a URL must have a host, and its port must consist of digits: {url!r}"
            )
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
        """The origin; only resources of the same origin may share secrets (RFC 6454 section 4)."""
        return self.secure, self.host, self.zone, self.port

    @property
    def authority(self) -> str:
        """The value of the ``Host`` header, without zone (RFC 6874 section 4) and default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    @property
    def node(self) -> str:
        """The name or address for the system's name lookup."""
        return f"{self.host}%{self.zone}" if self.zone else self.host

    @property
    def server_name(self) -> str:
        """The server name for TLS, without a trailing dot (RFC 6066 section 3), or the address."""
        return self.host.removesuffix(".")

    def with_authorization(self, headers: Headers) -> list[tuple[str, str]]:
        """Return the headers, with the URL's ``Authorization`` unless they contain one."""
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
        # A host may be percent-encoded (RFC 3986 section 3.2.2).
        name = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"the host name of a URL must be valid UTF-8: {text!r}") from None
    if not name.isascii() and len(name) <= MAX_NAME:  # each character becomes one or more in ASCII
        name = _to_ascii(name)
    name = name.lower()
    if not NAME.fullmatch(name) or len(name.removesuffix(".")) > MAX_NAME:
        raise ValueError(f"not a host name: {text!r}")
    if not ENDS_IN_A_NUMBER.fullmatch(name):
        return name
    try:
        return socket.inet_ntoa(socket.inet_aton(name.removesuffix(".")))
    except OSError:
        raise ValueError(
            f"a host whose last label is a number must be an IPv4 address: {text!r}"
        ) from None


def _to_ascii(name: str) -> str:
    """Return a name in its ASCII form: IDNA 2008 with the mappings of UTS 46 (non-transitional).

    The standard library's codec is IDNA 2003, which maps "faß" to "fass", a different name.
    """
    try:
        import idna
    except ImportError as error:
        raise ImportError(
            f"the host {name!r} is not in ASCII, which requires idna: pip install 'wsframe[client]'"
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
    # The zone follows "%25" (RFC 6874 section 2), but many tools write "%".
    if zone.startswith("25") and len(zone) > 2:
        zone = zone[2:]
    if percent and not ZONE.fullmatch(zone):
        raise ValueError(f"an IPv6 address has a malformed zone: {text!r}")
    return IPv6Address(address).compressed, zone


def _read_userinfo(userinfo: str) -> str | None:
    """Return the ``Authorization`` header for a user and a password (RFC 7617 section 2).

    Raises:
        ValueError: the header cannot contain them.
    """
    user, _, password = userinfo.partition(":")
    if not (user or password):
        return None  # browsers also ignore an empty user and password
    name, secret = unquote_to_bytes(user), unquote_to_bytes(password)
    if b":" in name or CONTROL.search(name + secret):
        raise ValueError(
            "the user of a URL must not contain a colon; user and password must not contain "
            "control characters"
        )
    return f"Basic {b64encode(name + b':' + secret).decode()}"
