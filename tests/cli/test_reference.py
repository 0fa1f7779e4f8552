"""The help of options, which is taken from docstrings."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from tools import settings_table
from wsframe.cli.options import SETTINGS, argument_parser
from wsframe.cli.reference import first_sentences
from wsframe.server import Settings


def documented() -> None:
    """Do something.

    Args:
        name: the name, with
            a second line, or ``None``. More about it.
        version: a version such as 6.2. Not 1.0.
        **options: further options.

    Raises:
        ValueError: the name is empty.
    """


def test_the_description_of_an_argument_ends_with_its_first_sentence() -> None:
    assert first_sentences(documented) == {
        "name": "the name, with a second line, or None",
        "version": "a version such as 6.2",
    }


@pytest.mark.parametrize("documentation", [None, "", "Only a summary.", "Args:\n"])
def test_an_object_without_descriptions_has_none(documentation: str | None) -> None:
    def plain() -> None: ...

    plain.__doc__ = documentation
    assert first_sentences(plain) == {}


def test_every_option_is_described() -> None:
    for action in argument_parser("wsframe serve")._actions:
        assert action.help
        assert not action.help.startswith(" ")


def test_the_page_of_the_settings_has_the_current_tables() -> None:
    page = settings_table.PAGE.read_text("utf-8")
    assert page == settings_table.updated(page), "run python -m tools.settings_table"


def test_the_page_of_the_settings_has_every_setting_and_every_field_once() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ", settings_table.tables(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == SETTINGS.keys() | {field.name for field in fields(Settings)}


def test_the_tables_show_options_variables_and_defaults() -> None:
    tables = settings_table.tables()
    for row in (
        "| `fds` | `--fd N`<br>`WSFRAME_FDS` |  | file descriptors of ",
        "| `heartbeat_event` | `--heartbeat-event TYPE`<br>`WSFRAME_HEARTBEAT_EVENT` | "
        '`""` | type ',
        "| `access_log` | `--access-log`<br>`WSFRAME_ACCESS_LOG` | `false` | log ",
        "| `port` | `--port PORT`<br>`WSFRAME_PORT` | `9292` | port ",
    ):
        assert row in tables
