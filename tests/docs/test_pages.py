"""The pages of the documentation: complete, and linked to each other."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

from tests.support.pages import DOCS, PAGES, ROOT, blocks, headings, links

# Every block is in one of these languages, which have tests, or needs none.
TESTED = {"console", "html", "javascript", "nginx", "python"}
UNTESTED = {"", "text", "{literalinclude}", "{toctree}"}


def listed() -> list[Path]:
    """Return the pages in the tables of contents."""
    return [
        path
        for block in blocks("{toctree}")
        for entry in block.code.split()
        for path in (block.page.parent / f"{entry}.md", block.page.parent / f"{entry}.rst")
        if path.exists()
    ]


def test_every_page_is_in_one_table_of_contents() -> None:
    entries = [
        entry
        for block in blocks("{toctree}")
        for entry in re.sub(r"^:.*\n", "", block.code, flags=re.MULTILINE).split()
    ]
    pages = {*DOCS.rglob("*.md"), *DOCS.rglob("*.rst")} - {DOCS / "index.md"}
    assert Counter(listed()) == Counter(pages)
    assert len(entries) == len(pages)


def test_links_lead_to_files_and_headings() -> None:
    wrong = [
        f"{page.relative_to(ROOT)}: {path}#{anchor}"
        for page in PAGES
        for path, anchor in links(page)
        for target in (page.parent / path if path else page,)
        if not target.exists() or (anchor and anchor not in headings(target))
    ]
    assert wrong == []


def test_included_files_exist() -> None:
    included = re.compile(r"{literalinclude} (\S+)")
    names = [(page, name) for page in PAGES for name in included.findall(page.read_text("utf-8"))]
    assert [name for page, name in names if not (page.parent / name).is_file()] == []


def test_every_block_of_code_has_a_language_that_is_tested() -> None:
    assert [str(block) for block in blocks() if block.language not in TESTED | UNTESTED] == []


def is_python(code: str) -> bool:
    """Return True if a block without a tested language is Python, or a part of a program in it.

    Lines with objects of JSON are data.
    """
    try:
        statements = ast.parse(code).body
    except SyntaxError:
        return False
    return not all(
        isinstance(each, ast.Expr) and isinstance(each.value, ast.Dict) for each in statements
    )


def test_no_python_is_labelled_as_text() -> None:
    """Otherwise no test would run it."""
    assert [str(block) for block in blocks("", "text") if is_python(block.code)] == []
