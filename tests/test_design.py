"""docs/design.md lists every module, and its links and names of files exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "design.md").read_text()
# Modules of a package that need no description.
UNLISTED = {"__init__.py", "__main__.py"}


def listed() -> Iterator[str]:
    """Yield the paths of the modules in the layout; names are indented below their folder."""
    folders: list[tuple[int, str]] = []
    block = PAGE.partition("## The layout")[2].partition("\n\n")[2].partition("\n\n")[0]
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        while folders and folders[-1][0] >= indent:
            folders.pop()
        match = re.match(r"\s*((?:[\w/]+(?:\.pyx?|/)(?:, )?)+)", line)
        assert match, f"no name in {line!r}"
        for name in match[1].split(", "):
            path = "".join(folder for _, folder in folders) + name
            if name.endswith("/"):
                folders.append((indent, name))
            else:
                yield path


def test_layout_lists_every_module_once() -> None:
    modules = sorted(
        str(path.relative_to(ROOT).as_posix())
        for path in (ROOT / "src").rglob("*.py*")
        if path.suffix in (".py", ".pyx") and path.name not in UNLISTED
    )
    assert sorted(listed()) == modules


@pytest.mark.parametrize("page", ["design.md", "../CONTRIBUTING.md", "../SECURITY.md"])
def test_links_lead_to_files_and_headings(page: str) -> None:
    path = ROOT / "docs" / page
    text = path.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)", file.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles]


@pytest.mark.parametrize("page", ["docs/design.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_named_files_exist(page: str) -> None:
    names = re.findall(
        r"`((?:[\w.-]+/)*[\w-]+\.(?:pyx|py|c|h|yaml|yml|md))`", (ROOT / page).read_text()
    )
    folders = (ROOT, ROOT / "src" / "server", ROOT / "src" / "wsframe", ROOT / "src")
    known = {"deflate.h"}
    missing = [
        name
        for name in names
        if not any((folder / name).exists() for folder in folders)
        and not any(ROOT.glob(f"src/**/{name}"))
        and name not in known
    ]
    assert missing == []
