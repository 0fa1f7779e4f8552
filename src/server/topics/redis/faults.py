"""The scope of an error of Redis, or of its connection: all commands, or one item.

The scope depends on the class of the error, or else on its code. The error of a script contains the
code of the failed command inside its text (Redis 6.2: "ERR Error running script ...: -OOM ...").
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from enum import Enum

import redis
from redis import exceptions


class Fault(Enum):
    """The scope of an error, and the treatment."""

    OUTAGE = "Redis is unreachable or not ready: reconnect, and send all commands again"
    REFUSAL = "the configuration of this Redis prevents its use, until an administrator changes it"
    ITEM = "one item is rejected: continue with the others"
    POISON = "one item can never be sent, because of its size"


# The error codes of a node that is starting, demoted, full or busy, which are temporary states.
_NOT_READY = re.compile(
    r"\b(LOADING|READONLY|MASTERDOWN|OOM|MISCONF|NOREPLICAS|BUSY|UNKILLABLE)\b"
    r"|read only replica|max number of clients"
)
_WRONG_NODE = re.compile(r"\b(READONLY|MASTERDOWN)\b|read only replica")
_REFUSAL = re.compile(
    r"\b(NOAUTH|WRONGPASS|MOVED|ASK|CROSSSLOT|CLUSTERDOWN|TRYAGAIN)\b"
    r"|[Uu]nknown (Redis )?(sub)?command|cluster mode"
)
_NOT_READY_CLASSES = (
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.OutOfMemoryError,
    exceptions.NoScriptError,  # SCRIPT FLUSH has removed a script that was just loaded
)
_REFUSAL_CLASSES = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.AskError,  # the base class of MovedError
    exceptions.ClusterDownError,
    exceptions.ClusterCrossSlotError,
    exceptions.TryAgainError,
)


def fault_of(error: BaseException) -> Fault:
    """Return the scope of an error."""
    if isinstance(error, _NOT_READY_CLASSES):
        return Fault.OUTAGE
    if isinstance(error, _REFUSAL_CLASSES) or _is_bad_certificate(error):
        return Fault.REFUSAL
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError, OSError)):
        return Fault.OUTAGE
    text = str(error)
    if isinstance(error, exceptions.NoPermissionError) or "NOPERM" in text:
        return Fault.ITEM
    if "Protocol error" in text:  # after a protocol error, Redis closes the connection
        return Fault.POISON
    if _NOT_READY.search(text):
        return Fault.OUTAGE
    if _REFUSAL.search(text):
        return Fault.REFUSAL
    return Fault.ITEM


def is_wrong_node(error: BaseException) -> bool:
    """Return True if the node is a replica, because another one is the primary now."""
    return isinstance(error, (exceptions.ReadOnlyError, exceptions.MasterDownError)) or bool(
        _WRONG_NODE.search(str(error))
    )


def is_cut(error: BaseException) -> bool:
    """Return True if Redis has closed the connection; a time-out is a different error."""
    return isinstance(error, (redis.ConnectionError, OSError)) and not isinstance(
        error, (redis.TimeoutError, TimeoutError, *_REFUSAL_CLASSES, *_NOT_READY_CLASSES)
    )


def _is_bad_certificate(error: BaseException) -> bool:
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
