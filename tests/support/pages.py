"""The pages of the documentation: their blocks of code, their headings, and their links."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
# The pages outside of docs/, some of which docs/conf.py includes.
OUTSIDE = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "bench/README.md",
    "deploy/README.md",
)
PAGES = tuple(sorted([*DOCS.rglob("*.md"), *(ROOT / name for name in OUTSIDE)]))

FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# In text that follows a bracket: not in code, where a call can look like a link.
CODE = re.compile(r"`[^`\n]*`")


class Block(NamedTuple):
    """A block of code in a page.

    Attributes:
        page: the page.
        line: the number of its first line.
        language: the language, or a directive of MyST in braces.
        code: the code, not indented.
    """

    page: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def run(self, names: dict[str, Any]) -> None:
        """Execute a block of Python, whose tracebacks name its lines in the page."""
        source = "\n" * (self.line - 1) + self.code
        exec(compile(source, str(self.page), "exec"), names)


def blocks(*languages: str, pages: tuple[Path, ...] = PAGES) -> list[Block]:
    """Return the blocks of these languages, in order; of all languages if none is given."""
    return [
        block
        for page in pages
        for block in _blocks(page)
        if not languages or block.language in languages
    ]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for match in FENCE.finditer(text):
        indent, language, code = match.groups()
        lines = [line.removeprefix(indent) for line in code.splitlines(keepends=True)]
        yield Block(page, text.count("\n", 0, match.start(3)) + 1, language, "".join(lines))


def headings(page: Path) -> list[str]:
    """Return the anchors of the headings of a page."""
    titles = re.findall(r"^#+ (.*)", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


def links(page: Path) -> list[tuple[str, str]]:
    """Return the relative links of a page, each as a path and the anchor of a heading."""
    text = CODE.sub("", FENCE.sub("", page.read_text("utf-8")))
    targets = [target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target)]
    return [(path, anchor) for path, _, anchor in (target.partition("#") for target in targets)]


def run_block(word: str, page: str = "README.md") -> dict[str, Any]:
    """Run the block with this word in a page, and return what it defines."""
    (block,) = (block for block in blocks("python", pages=(ROOT / page,)) if word in block.code)
    names: dict[str, Any] = {"__name__": "page"}
    block.run(names)
    return names


def load_example(name: str) -> ModuleType:
    """Import an example, which is no part of a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
