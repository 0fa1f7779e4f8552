"""The tables of docs/settings.md: ``python -m tools.settings_table`` writes them again.

The source is the table of the command line, with the descriptions of its options.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from wsframe.cli.options import APP, FIELDS, GROUPS, SETTINGS, Setting
from wsframe.server import Settings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
BEGIN, END = "<!-- settings -->", "<!-- end of settings -->"
HEAD = "| setting | option, variable | default | meaning |\n|---|---|---|---|"


def tables() -> str:
    """Return a table for each group of settings, below its heading."""
    parts = [_table("The application", [_row(APP, APP.kind.metavar)])]
    for title, settings in GROUPS.items():
        rows = [_row(each, f"{each.flag} {each.kind.metavar}".rstrip()) for each in settings]
        parts.append(_table(title[0].upper() + title[1:], rows))
    only_in_python = [field.name for field in fields(Settings) if field.name not in SETTINGS]
    rows = [f"| `{name}` | | | {_text(FIELDS[name])} |" for name in only_in_python]
    parts.append(_table("Only in Python", rows))
    return "\n\n".join(parts)


def updated(page: str) -> str:
    """Return the text of the page with the current tables."""
    section = f"{BEGIN}\n\n{tables()}\n\n{END}"
    return re.sub(f"{BEGIN}.*{END}", lambda _: section, page, flags=re.DOTALL)


def _table(title: str, rows: Iterable[str]) -> str:
    return "\n".join([f"## {title}", "", HEAD, *rows])


def _row(setting: Setting, option: str) -> str:
    default = "" if setting.default is None or setting.default == () else _default(setting.default)
    names = f"`{option}`<br>`{setting.variable}`"
    return f"| `{setting.name}` | {names} | {default} | {_text(setting.help)} |"


def _text(meaning: str) -> str:
    """Return a description in Markdown; values in quotation marks are code."""
    parts = re.split('("[^"]*")', meaning)
    values = (f"`{part}`" if part.startswith('"') else part.replace("*", r"\*") for part in parts)
    return "".join(values)


def _default(value: object) -> str:
    """Return a value as it is written in a TOML file."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text("utf-8")), "utf-8")
