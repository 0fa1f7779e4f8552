"""The descriptions of arguments and attributes in docstrings, for the help of options."""

from __future__ import annotations

import inspect
import re

ENTRY = re.compile(r"^    (\w+): (.+(?:\n        .+)*)", re.MULTILINE)


def first_sentences(documented: object) -> dict[str, str]:
    """Return the first sentence of each entry in a docstring's ``Args`` or ``Attributes``.

    The result is empty where Python has removed the docstrings (``-OO``).
    """
    text = inspect.getdoc(documented) or ""
    _, _, entries = re.sub(r"^(Args|Attributes):$", "\0", text, flags=re.MULTILINE).partition("\0")
    return {name: _first_sentence(body) for name, body in ENTRY.findall(entries.split("\n\n")[0])}


def _first_sentence(body: str) -> str:
    text = re.sub(r"\s+", " ", body).replace("``", "")
    return re.split(r"\.(?: |$)", text, maxsplit=1)[0]
