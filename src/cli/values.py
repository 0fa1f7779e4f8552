"""Converters for the values of command-line options.

Each function raises ``argparse.ArgumentTypeError`` for an invalid text.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

from ..server.addresses import TrustedNetworks
from ..server.hosts import Hosts
from ..server.sockets.unix import group_number

DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]*)?|\.[0-9]+")


def port(text: str) -> int:
    """Return a port number from 0 to 65535."""
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 65535:
        raise ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def count(text: str) -> int:
    """Return a non-negative integer."""
    if not re.fullmatch("[0-9]{1,10}", text):
        raise ArgumentTypeError(f"expected a non-negative integer, got {text!r}")
    return int(text)


def mode(text: str) -> int:
    """Return the permissions of a file, given in octal."""
    if not re.fullmatch("(0o?)?[0-7]{3}", text):
        raise ArgumentTypeError(f"expected permissions in octal such as 660, got {text!r}")
    return int(text, 8)


def group(text: str) -> str | int:
    """Return the name or the number of a group that exists."""
    group = int(text) if re.fullmatch("[0-9]{1,9}", text) else text
    try:
        group_number(group)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return group


def proxy(text: str) -> str:
    """Return the address or network of a proxy."""
    try:
        TrustedNetworks([text])
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return text


def hosts(text: str) -> list[str]:
    """Return the hosts of a list with commas."""
    hosts = text.split(",")
    try:
        Hosts(hosts)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return hosts


def seconds(text: str) -> float:
    """Return a number of seconds."""
    if not DECIMAL.fullmatch(text):
        raise ArgumentTypeError(f"expected a number of seconds, got {text!r}")
    return float(text)


def share(text: str) -> float:
    """Return a number; the setting checks that it is a share."""
    if not DECIMAL.fullmatch(text):
        raise ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return float(text)


def app_name(text: str) -> str:
    """Return the name of an app, ``module:app``."""
    module, _, attribute = text.partition(":")
    if not module or module.startswith(".") or not attribute:
        raise ArgumentTypeError(f"expected module:app, got {text!r}")
    return text
