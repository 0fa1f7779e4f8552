"""The remedies that ``doctor`` prints, applied to configurations of proxies."""

from __future__ import annotations

import re
from collections.abc import Mapping

# The column of the remedies in a report, and the width of the proxy's name in front of each.
INDENT = " " * 11
TITLE = 12
# Directives that a configuration may have once for each value of the first argument.
REPEATED = ("proxy_set_header", "location", "handle")
# The directives that belong to nginx's server.
OF_SERVER = ("location", "server_name", "ssl_certificate", "ssl_certificate_key")


def printed_remedies(report: str, proxy: str) -> list[list[str]]:
    """Return the alternatives that a report names for a proxy, each a list of lines."""
    found: list[list[str]] = []
    title = ""
    for line in report.splitlines():
        start, text = line[len(INDENT) :][:TITLE].strip(), line[len(INDENT) + TITLE :]
        if not line.startswith(INDENT) or not (start.endswith(":") or start == ""):
            title = ""  # a finding, or its remedy in general
            continue
        title = start or title
        if title != f"{proxy}:":
            continue
        if start or text.startswith("or "):
            found.append([])
        found[-1].append(text.removeprefix("or "))
    return found


def apply_remedy(configuration: str, remedy: list[str], names: Mapping[str, object]) -> str:
    """Return a configuration of nginx or Caddy to which a remedy was applied.

    Args:
        configuration: the configuration, with one directive in each line.
        remedy: the lines of the remedy.
        names: the values of the words in capitals, and of the port 9292.
    """
    lines = [line.strip() for line in configuration.splitlines()]
    words = re.compile("|".join(rf"\b{name}\b" for name in names))
    block: list[str] = []
    for line in remedy:
        text = line.partition("   #")[0].strip()
        if text.startswith("remove "):
            for pattern in _patterns(text.removeprefix("remove ")):
                lines = _without(lines, pattern)[0]
            continue
        block.append(words.sub(lambda match: str(names[match[0]]), text))
        if "".join(block).count("{") == "".join(block).count("}"):
            lines = _with(lines, block)
            block = []
    assert not block
    return "\n".join(lines)


def _patterns(directives: str) -> list[str]:
    """Return the patterns of the directives that a line removes."""
    first, _, headers = directives.partition(" for ")
    names = re.split(", | and ", first)
    if not headers:
        return [rf"{re.escape(name)}\b" for name in names]
    return [
        rf"{name} [-+?>]?{header}\b" for name in names for header in re.split(", | and ", headers)
    ]


def _without(lines: list[str], pattern: str) -> tuple[list[str], int]:
    """Return the lines without directives and their blocks, and the place of the last one; or 0."""
    left: list[str] = []
    place = depth = 0
    for line in lines:
        if depth or re.match(pattern, line):
            place = len(left)
            depth += line.endswith("{") - line.startswith("}")
        else:
            left.append(line)
    return left, place


def _with(lines: list[str], block: list[str]) -> list[str]:
    """Return the lines with a directive, in the place of an existing one."""
    words = block[0].split()
    key = words[: 1 + (words[0] in REPEATED)]
    lines, place = _without(lines, rf"{re.escape(' '.join(key))}(?![\w-])")
    if not place:
        nginx = "server {" in lines
        site = "location / {" if words[0] not in OF_SERVER else "server {"
        place = 1 + next(
            number
            for number, line in enumerate(lines)
            if (line == site if nginx else re.match(r"https?://localhost", line))
        )
    return [*lines[:place], *block, *lines[place:]]
