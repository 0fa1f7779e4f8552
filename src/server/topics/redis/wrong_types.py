"""Keys of a wrong type: another program has written a value under the name of a topic's key."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import redis


def explained(client: Any, error: Exception, types: Mapping[str, str]) -> str:
    """A thread with a connection: return the text of an error for a message.

    The text of Redis does not name a key of a wrong type. So the function looks for such a key, and
    returns its name, its type and the remedy.

    Args:
        client: the client of the thread.
        error: the error of a command.
        types: the keys of the command, and the type that each must have.
    """
    if "WRONGTYPE" in str(error):
        with suppress(redis.RedisError):  # the next command returns the error of an outage
            pipe = client.pipeline(transaction=False)
            for key in types:
                pipe.type(key)
            for (key, expected), found in zip(types.items(), pipe.execute(), strict=True):
                if found not in (expected.encode(), b"none"):
                    return (
                        f"the key {key!r} has the type {found.decode()} instead of {expected}, "
                        "because another program has written it; delete or rename the key"
                    )
    return str(error)
