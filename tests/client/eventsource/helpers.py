"""Scripted servers of event streams."""

from __future__ import annotations

from itertools import islice
from typing import Any


def data(events: Any, count: int) -> list[str]:
    """Return the data of the next events."""
    return [event.data for event in islice(events, count)]
