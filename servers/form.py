"""The extent of the checks, in the tests and in the long form."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """The extent of the checks.

    Attributes:
        seconds: the duration of an echo, and of the measurement of a server at rest.
        silence: the seconds without a message after it.
        connections: the number of connections after which all resources must be released.
    """

    seconds: float
    silence: float
    connections: int


SHORT = Form(seconds=0.3, silence=0.1, connections=64)
LONG = Form(seconds=4.0, silence=6.0, connections=1000)
