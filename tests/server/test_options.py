"""The typed keyword arguments of the settings."""

from __future__ import annotations

import ssl
from typing import get_type_hints

from wsframe.server import Settings
from wsframe.server.options import CommonOptions, ServerOptions


def test_every_setting_is_a_typed_option() -> None:
    names = {"ssl": ssl}  # which their modules import only for type checkers
    assert get_type_hints(ServerOptions, None, names) == get_type_hints(Settings, None, names)


def test_every_option_may_be_left_out() -> None:
    assert not ServerOptions.__required_keys__
    assert CommonOptions.__optional_keys__ < ServerOptions.__optional_keys__
