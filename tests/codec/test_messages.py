"""The types of messages."""

from __future__ import annotations

from array import array

import pytest

from wsframe.messages import check_message

pytestmark = pytest.mark.one_kernel


@pytest.mark.parametrize("message", ["text", b"data", bytearray(1), memoryview(b"x"), array("H")])
def test_texts_and_bytes_like_objects_are_messages(message: object) -> None:
    check_message(message)


@pytest.mark.parametrize("message", [None, 1, {"a": 1}, ["text"]])
def test_other_objects_are_no_messages(message: object) -> None:
    with pytest.raises(TypeError, match=r"a message must be str or bytes-like, .*send_json"):
        check_message(message)
