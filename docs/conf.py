"""The documentation: ``make docs`` writes its pages to build/docs.

The name and the public address are those of pyproject.toml.
"""

from __future__ import annotations

import io
import os
import re
import tomllib
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from wsframe import __version__
from wsframe.cli import main

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

project = METADATA["name"]
author = METADATA["authors"][0]["name"]
copyright = author  # noqa: A001 - the name that Sphinx requires
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_copyright = False
# The public address of the project, if it has one: a link at the foot of each page.
if address := METADATA.get("urls", {}).get("Source"):
    html_theme_options = {
        "footer_icons": [{"name": "Source", "url": address, "html": "Source", "class": ""}]
    }

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
pygments_style = "default"
pygments_dark_style = "github-dark"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {
    "members": True,
    "inherited-members": "Exception,NamedTuple,int,object",
}
napoleon_use_ivar = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 110

# Types of other projects, and types in signatures that users need not know.
nitpick_ignore_regex = [
    ("py:.*", r"(?!wsframe)[\w.\[]*"),
    ("py:class", r"wsframe\.fields\.Fields"),
    ("py:class", r"wsframe\.[a-z]+\.[a-z_.]+\.[A-Z]\w+"),
]
# Classes whose objects are returned, so that their constructors are not for users.
RETURNED = {
    "Application", "EventSource", "EventStream", "Reply", "Request", "Server", "SockWebSocket",
    "Subscription", "Topic", "View", "WebSocket",
}  # fmt: skip

# Files outside of this folder that are pages, by the pages that include them.
INCLUDED = {
    "bench/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def follow(link: re.Match[str], source: Path, page: Path) -> str:
    """Return a link of ``source`` for the page that shows it.

    Other files are at the public address of the project; without an address, the text remains.
    """
    text, target, anchor = link.groups()
    file = (source.parent / target).resolve()
    if not file.exists():
        return link[0]  # code, or an error that Sphinx reports
    name = file.relative_to(ROOT).as_posix()
    if name in INCLUDED:
        file = ROOT / "docs" / INCLUDED[name]
    elif file.is_dir() or (file.suffix == ".md" and file.parent != ROOT / "docs"):
        return f"[{text}]({address}/blob/HEAD/{name}{anchor or ''})" if address else text
    return f"[{text}]({Path(os.path.relpath(file, page.parent)).as_posix()}{anchor or ''})"


def read_page(app: Sphinx, name: str, content: list[str]) -> None:
    """Insert the file that a page includes, and let links lead to pages where that is possible."""
    page = source = Path(app.env.doc2path(name))
    if page.suffix != ".md":
        return
    for file, included in INCLUDED.items():
        if included == f"{name}.md":
            source = ROOT / file
            content[0] = source.read_text("utf-8")
    text = LINK.sub(lambda link: follow(link, source, page), content[0])
    content[0] = re.sub(r"<!-- wsframe (.*--help) -->", help_of, text)


def help_of(match: re.Match[str]) -> str:
    """Return the help of a command of ``wsframe``."""
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        main(match[1].split())
    return f"```text\n{printed.getvalue()}```"


def read_property(
    app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]
) -> None:
    """Format the docstring of a property like that of a method, with its sections."""
    if what == "property":
        from sphinx.ext.napoleon import GoogleDocstring  # tests read this file without Sphinx

        # After an empty comment, napoleon leaves the rest unchanged.
        lines[:] = [
            "..",
            "",
            *GoogleDocstring(lines, app.config, app, "method", name, item).lines(),
        ]


def hide_constructor(
    app: Sphinx, what: str, name: str, item: object, options: object, *signature: object
) -> tuple[str, str] | None:
    """Show no signature for a class whose constructor is not for users."""
    return ("", "") if what == "class" and name.rpartition(".")[2] in RETURNED else None


def setup(app: Sphinx) -> None:
    """Register the functions above."""
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", read_property, priority=400)
    app.connect("autodoc-process-signature", hide_constructor)
