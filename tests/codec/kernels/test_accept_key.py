"""The accept key (RFC 6455 section 4.2.2)."""

from __future__ import annotations

import base64
import hashlib
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.codec.kernels.helpers import StrSubclass
from tests.support.vectors import (
    RFC_ACCEPT,
    RFC_KEY,
)


def accept_by_hand(key: str) -> str:
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()


def test_accept_key_of_the_rfc(codec: ModuleType) -> None:
    accept = codec.accept_key(RFC_KEY)
    assert type(accept) is str
    assert accept == RFC_ACCEPT


@pytest.mark.parametrize("size", [0, 1, 16, 19, 20, 23, 24, 25, 27, 28, 63, 64, 65, 300])
def test_accept_key_of_other_lengths(codec: ModuleType, size: int) -> None:
    key = ("dGhlIHNhbXBsZSBub25jZQ" * 14)[:size]
    assert codec.accept_key(key) == accept_by_hand(key)


def test_accept_key_of_a_subclass_of_str(codec: ModuleType) -> None:
    assert codec.accept_key(StrSubclass(RFC_KEY)) == RFC_ACCEPT


@given(nonce=st.binary(min_size=16, max_size=16))
def test_accept_key_is_sha1_in_base64(codec: ModuleType, nonce: bytes) -> None:
    key = base64.b64encode(nonce).decode()
    assert codec.accept_key(key) == accept_by_hand(key)


@given(key=st.text(st.characters(max_codepoint=127), min_size=24, max_size=24))
def test_accept_key_of_any_ascii(codec: ModuleType, key: str) -> None:
    assert codec.accept_key(key) == accept_by_hand(key)
