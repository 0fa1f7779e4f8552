"""The delay of an event stream before it reconnects."""

from __future__ import annotations

import time
from email.utils import formatdate
from types import ModuleType

import pytest

pytestmark = pytest.mark.one_kernel

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ([], 0),
        (["0"], 0),
        (["120"], 120),
        (["007"], 7),
        (["9" * 5000], float("inf")),  # Pause limits it to an hour
        (["5", "7", "6"], 7),
        # The three formats of RFC 9110 section 5.6.7.
        (["Sun, 06 Nov 1994 08:50:07 GMT"], 30),
        (["Sunday, 06-Nov-94 08:50:07 GMT"], 30),
        (["Sun Nov  6 08:50:07 1994"], 30),
        (["Sun, 06 Nov 1994 08:49:07 GMT"], 0),  # in the past
        # Malformed values are ignored.
        ([""], 0),
        (["-1"], 0),
        (["+5"], 0),
        (["1.5"], 0),
        (["1e3"], 0),
        (["\u0665"], 0),
        (["soon"], 0),
        (["soon", "5"], 5),
        (["Sun, 99 Nov 1994 08:50:07 GMT"], 0),
        (["99999999999999999999 Nov 1994 08:50:07 GMT"], 0),
        (["Sun, 06 Nov 1994 08:50:07 +9999999999"], 0),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(
    codec: ModuleType, values: list[str], seconds: float
) -> None:
    assert codec.client.pause.retry_after(values, [DATE]) == seconds


@pytest.mark.parametrize("dates", [[], ["soon"]])
def test_without_a_date_header_the_local_clock_is_used(codec: ModuleType, dates: list[str]) -> None:
    value = formatdate(time.time() + 3000, usegmt=True)
    assert 2900 < codec.client.pause.retry_after([value], dates) <= 3000


def test_the_delay_of_the_server_is_limited(codec: ModuleType) -> None:
    for asked, held in ((0.0, 0.5), (0.4, 0.5), (7.0, 7.0), (1e9, 3600.0)):
        pause = codec.client.pause.Pause(asked)
        assert pause.retry == held
        assert held <= pause.seconds() <= 1.25 * held
        pause.fail(float("inf"))
        assert 3600 <= pause.seconds() <= 1.25 * 3600
