"""Checks of callers' messages, and the encoding of values as JSON."""

from __future__ import annotations

import json

__all__ = ["check_message", "encode_json"]


def encode_json(value: object) -> str:
    """Return a value as JSON, in ASCII.

    Raises:
        TypeError: JSON cannot encode the value.
        ValueError: the value contains a circular reference, NaN or infinity.
    """
    return json.dumps(value, allow_nan=False)


def check_message(message: object) -> None:
    """Check the type of a message.

    Raises:
        TypeError: the message is neither a ``str`` nor a bytes-like object.
    """
    if not isinstance(message, str):
        try:
            memoryview(message)  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(
                f"a message must be str or bytes-like, not {type(message).__name__}; "
                "send_json sends a value as JSON"
            ) from None
