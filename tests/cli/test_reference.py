"""The help of options, which is taken from docstrings."""

from __future__ import annotations

import pytest

from wsframe.cli.options import argument_parser
from wsframe.cli.reference import first_sentences


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
