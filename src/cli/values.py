"""The values of settings, as text.

The text comes from an option, an environment variable, or a value in a file. Each converter raises
``argparse.ArgumentTypeError`` for an invalid text.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..server.addresses import TrustedNetworks
from ..server.headers import BY_DEFAULT, added_headers
from ..server.hosts import Hosts
from ..server.settings import CLIENT_CERT as NEEDS
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


def proxies(text: str) -> list[str]:
    """Return the addresses and networks of a list with commas."""
    networks = text.split(",") if text else []
    try:
        TrustedNetworks(networks)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return networks


def descriptors(text: str) -> list[int]:
    """Return the file descriptors of a list with commas."""
    return [count(each) for each in text.split(",")]


def hosts(text: str) -> list[str]:
    """Return the hosts of a list with commas."""
    hosts = text.split(",")
    try:
        Hosts(hosts)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return hosts


def headers(text: str) -> list[tuple[str, str]]:
    """Return the headers of a text with one header a line, ``name: value``."""
    found = []
    for line in text.split("\n"):
        name, colon, value = line.partition(":")
        if not colon:
            raise ArgumentTypeError(f"expected NAME: VALUE, got {line!r}")
        found.append((name.strip(), value.strip()))
    try:
        return list(added_headers(found, BY_DEFAULT))
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """Return a number of seconds."""
    if not DECIMAL.fullmatch(text):
        raise ArgumentTypeError(
            f"expected a finite number of seconds that is at least 0, got {text!r}"
        )
    return float(text)


def share(text: str) -> float:
    """Return a number; the setting checks that it is at most 1."""
    if not DECIMAL.fullmatch(text):
        raise ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return float(text)


def app_name(text: str) -> str:
    """Return the name of an app, ``module:app``."""
    module, _, attribute = text.partition(":")
    if not module or module.startswith(".") or not attribute:
        raise ArgumentTypeError(f"expected module:app, got {text!r}")
    return text


def switch(text: str) -> bool:
    """Return True or False."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise ArgumentTypeError(f"expected true or false, got {text!r}")


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a converter that accepts the given texts, in lower or upper case."""

    def convert(text: str) -> str:
        if text.lower() not in choices:
            raise ArgumentTypeError(f"expected one of {', '.join(choices)}, got {text!r}")
        return text.lower()

    return convert


@dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes:
        metavar: the placeholder for the value in the help.
        convert: a function that returns the value of a text.
        types: the types of the value in a TOML file.
        text: a function that returns the text of a value in a TOML file.
        many: True if the option may be repeated, and the value is a list.
        secret: True if no message may contain the value.
    """

    metavar: str
    convert: Callable[[str], object] = str
    types: tuple[type, ...] = (str,)
    text: Callable[[Any], str] = str
    many: bool = False
    secret: bool = False


def _joined(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _octal(value: str | int) -> str:
    if isinstance(value, str):
        return value
    if not 0 <= value <= 0o777:  # probably octal digits without their prefix
        raise ArgumentTypeError(
            f'expected permissions in octal such as 0o660 or "660", got the decimal number {value}'
        )
    return f"{value:03o}"


def _lines(value: str | dict[str, object]) -> str:
    if isinstance(value, str):
        return value
    for name, text in value.items():
        if not isinstance(text, str) or "\n" in text:
            raise ArgumentTypeError(f"expected a string without line breaks for {name}: {text!r}")
    return "\n".join(f"{name}: {text}" for name, text in value.items())


COUNT = Kind("N", count, (int,))
BYTES = Kind("BYTES", count, (int,))
SECONDS = Kind("SECONDS", seconds, (int, float))
SHARE = Kind("SHARE", share, (int, float))
PORT = Kind("PORT", port, (int,))
MODE = Kind("MODE", mode, (str, int), _octal)
GROUP = Kind("GROUP", group, (str, int))
APP = Kind("module:app", app_name)
HOST = Kind("HOST")
FILE = Kind("FILE")
PATH = Kind("PATH")
TEXT = Kind("TEXT")
EVENT = Kind("TYPE")
SECRET_URL = Kind("URL", secret=True)
LOG_LEVEL = Kind("LEVEL", one_of("debug", "info", "warning", "error", "critical"))
LOG_FORMAT = Kind("FORMAT", one_of("text", "json"))
SWITCH = Kind("", switch, (bool,))
CLIENT_CERT = Kind("NEED", one_of(*NEEDS))
FDS = Kind("N", descriptors, (int, list), _joined, many=True)
HOSTS = Kind("NAME", hosts, (str, list), _joined, many=True)
HEADERS = Kind("NAME:VALUE", headers, (dict, str), _lines, many=True)
PROXIES = Kind("ADDRESS", proxies, (str, list), _joined, many=True)
