"""The texts of source files that people read: docstrings, comments, messages and prose."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeAlias

ROOT = Path(__file__).parent.parent
FOLDERS = (
    ".ci", ".github", "attack", "bench", "conformance", "docs", "examples", "fuzz", "servers",
    "soak", "src", "tests", "tools",
)  # fmt: skip
SUFFIXES = {".py", ".pyi", ".pyx", ".c", ".h", ".md", ".toml", ".yml", ".yaml", ".sh"}
GENERATED = {"_kernels.c", "_rounds.c"}
# Calls whose strings a person reads.
READ_CALLS = {
    "critical", "debug", "error", "exception", "info", "log", "warning", "warn", "print", "exit",
    "fail", "skip", "exitcode", "refuse", "reject",
}  # fmt: skip
# A comment of Python or Cython, or a string, in which "#" begins no comment. The module tokenize
# takes ten times as long.
COMMENT = re.compile(
    r"(?P<comment>#[^\n]*)"
    r'|"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""'
    r"|'''[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''"
    r'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
    r"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'",
    re.DOTALL,
)

Found: TypeAlias = Iterable[tuple[int, str, str]]


class Text(NamedTuple):
    """One text in a file.

    Attributes:
        path: the file.
        line: the number of its first line.
        kind: "docstring", "comment", "message" (an error, a log line or a help text), "string" (any
            other string with a space), "name" (of a test, as words) or "prose" (Markdown).
        text: the words, on one line unless it is a docstring.
    """

    path: Path
    line: int
    kind: str
    text: str


def read(path: Path) -> list[Text]:
    """Return the texts of a file, in the order of their lines; none for an unknown kind of file."""
    source = path.read_text(encoding="utf-8")
    found: Found = ()
    if path.suffix == ".md":
        found = _markdown(source)
    elif path.suffix in (".py", ".pyi"):
        found = [*_strings(source), *_comments(source)]
    elif path.suffix == ".pyx":
        found = [*_cython_strings(source), *_comments(source)]
    elif path.suffix in (".c", ".h"):
        found = _c_comments(source)
    elif path.name == "Makefile" or path.suffix in (".toml", ".yml", ".yaml", ".sh"):
        found = _hash_comments(source)
    return [Text(path, *one) for one in sorted(found)]


def read_all(paths: Iterable[Path]) -> list[Text]:
    """Return the texts of all these files."""
    return [text for path in paths for text in read(path)]


def files(names: Iterable[str]) -> list[Path]:
    """Return the readable files of these names and folders; with no name, all of the project."""
    paths: list[Path] = []
    for path in map(Path, names) if names else _project():
        paths += sorted(path.rglob("*")) if path.is_dir() else [path]
    return [
        path
        for path in paths
        if (path.suffix in SUFFIXES or path.name == "Makefile") and path.name not in GENERATED
    ]


def _project() -> list[Path]:
    return [*(ROOT / name for name in FOLDERS), *(p for p in sorted(ROOT.iterdir()) if p.is_file())]


def _strings(source: str) -> Found:
    tree = ast.parse(source)
    docstrings: set[ast.AST] = set()
    shown: set[ast.AST] = set()
    inner: set[ast.AST] = set()
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                docstrings.add(node.body[0].value)  # type: ignore[attr-defined]
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield node.lineno, "name", node.name.removeprefix("test_").replace("_", " ")
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            shown.update(ast.walk(node.exc))
        elif isinstance(node, ast.Call) and _name(node.func) in READ_CALLS:
            for argument in node.args:
                shown.update(ast.walk(argument))
        elif isinstance(node, ast.keyword) and node.arg in ("help", "description", "epilog"):
            shown.update(ast.walk(node.value))
        elif isinstance(node, ast.Assert) and node.msg is not None:
            shown.update(ast.walk(node.msg))
        elif isinstance(node, ast.JoinedStr):
            inner.update(node.values)
    for node in nodes:
        text = _constant(node) if node not in inner else None
        if text is None or " " not in text.strip():
            continue
        if node in docstrings:
            yield node.lineno, "docstring", text  # type: ignore[attr-defined]
        else:
            kind = "message" if node in shown else "string"
            if kind == "string" and re.search(r"[=({<;]", text) and "\n" in text:
                continue  # a program or a page
            yield node.lineno, kind, " ".join(text.split())  # type: ignore[attr-defined]


def _name(function: ast.expr) -> str | None:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None


def _constant(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
        return "".join(map(str, parts))
    return None


def _tokens(source: str) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(source).readline))


def _cython_strings(source: str) -> Found:
    """Find strings by tokens, because only Cython can parse the file."""
    layout = (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT)
    previous = tokenize.NEWLINE
    for token in _tokens(source):
        if token.type == tokenize.STRING:
            text = re.sub(r"^[a-zA-Z]*('''|\"\"\"|'|\")|('''|\"\"\"|'|\")$", "", token.string)
            if " " in text.strip():
                yield token.start[0], "docstring" if previous in layout else "message", text
        previous = token.type


def _comments(source: str) -> Found:
    """Find comments; comments on consecutive lines are one text."""
    block: list[str] = []
    begin, last = 0, (0, 0)
    row, place = 1, 0
    for match in COMMENT.finditer(source):
        if not match["comment"]:  # a string
            continue
        row, place = row + source.count("\n", place, match.start()), match.start()
        line = source[source.rfind("\n", 0, place) + 1 : place]
        follows = (row, len(line)) == (last[0] + 1, last[1])
        if block and not (follows and not line.strip()):
            yield begin, "comment", " ".join(block)
            block = []
        if not block:
            begin = row
        block.append(_prose(match["comment"]))
        last = (row, len(line))
    if block:
        yield begin, "comment", " ".join(block)


def _prose(comment: str) -> str:
    """Return the words of a comment without the mark, a linter's directive, or a rule of dashes."""
    words = comment.lstrip("#:! ").strip()
    if re.match(r"(type|noqa|fmt|ruff|cython|distutils|pragma|mypy)\b", words):
        return ""
    return re.sub(r"-{3,}", "", words)


def _c_comments(source: str) -> Found:
    """Find comments; each paragraph of one is a text."""
    for match in re.finditer(r"/\*(.*?)\*/|//([^\n]*)", source, re.DOTALL):
        line = source.count("\n", 0, match.start()) + 1
        for paragraph in re.split(r"\n\s*\*?\s*\n", match[1] or match[2] or ""):
            yield line, "comment", " ".join(re.sub(r"\n\s*\*?", " ", paragraph).split())
            line += paragraph.count("\n") + 2


def _hash_comments(source: str) -> Found:
    for number, line in enumerate(source.splitlines(), 1):
        match = re.search(r"(?:^|\s)##? (.*)", line)
        if match:
            yield number, "comment", match[1]


def _markdown(source: str) -> Found:
    """Find paragraphs and rows without inline code, and the comments of code blocks."""
    block: list[str] = []
    begin, fenced = 1, False
    for number, line in enumerate([*source.splitlines(), ""], 1):
        words = line.strip()
        starts = re.match(r"[-*|#>] |\d+\. |\||```", words) or not words
        if starts and block:
            yield begin, "prose", re.sub(r"`[^`]*`", "`code`", " ".join(block))
            block = []
        if words.startswith("```"):
            fenced = not fenced
        elif fenced or (line.startswith("    ") and not block):
            if match := re.search(r"(?:^|\s)#+ (.*)", line):
                yield number, "comment", match[1]
        elif words:
            if not block:
                begin = number
            block.append(words)


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; code, lists of arguments and directives count as no words."""
    plain = re.sub(
        r"^ *>>> .*?(\n\s*\n|\Z)", r"\1", text, flags=re.DOTALL | re.MULTILINE
    )  # examples
    plain = re.sub(r"``.*?``|`[^`]*`", "code", plain, flags=re.DOTALL).replace("**", "")
    parts = re.split(r"(?<=[.;:?!])\s+|\n\s*\n|\n\s*(?=\w+: )", plain)
    return [" ".join(part.split()) for part in parts if part.strip()]
