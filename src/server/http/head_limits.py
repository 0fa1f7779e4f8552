"""The limits of the head of a request, and the refusals beyond them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsframe import HandshakeError
from wsframe.requests import check_path

from ..reports.refusals import TOO_LARGE
from .refusals import RefusalError

if TYPE_CHECKING:
    from ..settings import Settings

MAX_PATH = 2 * 1024  # handlers keep the decoded path for as long as the connection lasts
MAX_PARAMETERS = 500  # of the query; each takes some microseconds of the loop's time


def check_head_size(size: int, settings: Settings) -> None:
    """Any thread: check the size of a head, complete or not.

    Raises:
        RefusalError: 431, because the head is too large.
    """
    limit = settings.max_head_size
    if size > limit:
        raise _too_large(431, f"the request head exceeds {limit} bytes", "max_head_size")


def check_target_size(size: int, settings: Settings) -> None:
    """Any thread: check the size of a request target, complete or not.

    Raises:
        RefusalError: 414, because the target is too long.
    """
    limit = settings.max_head_size // 2
    if size > limit:
        reason = f"the request target exceeds {limit} bytes"
        raise _too_large(414, reason, "max_head_size", " A target may have half of its bytes.")


def check_header_count(count: int, settings: Settings) -> None:
    """Any thread: check the number of headers, complete or not.

    Raises:
        RefusalError: 431, because there are too many.
    """
    limit = settings.max_headers
    if count > limit:
        raise _too_large(431, f"the request has more than {limit} headers", "max_headers")


def check_target(path: str, query: str) -> None:
    """Any thread: check the limits of a request target that are not settings.

    Raises:
        HandshakeError: 414, because the path is too long; or 400, because the query has too many
            parameters.
    """
    check_path(path, MAX_PATH)
    if query.count("&") >= MAX_PARAMETERS:
        raise HandshakeError(400, f"the query has more than {MAX_PARAMETERS} parameters")


def _too_large(status: int, reason: str, setting: str, more: str = "") -> RefusalError:
    option = f"--{setting.replace('_', '-')}"
    advice = f"The limit is the setting {setting} ({option}).{more}"
    return RefusalError(status, reason, kind=TOO_LARGE, advice=advice)
