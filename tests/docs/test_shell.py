"""The shell commands in the pages: their syntax, and the commands and options of this project."""

from __future__ import annotations

import importlib.util
import io
import re
import shlex
import shutil
import subprocess
import tomllib
from contextlib import redirect_stdout, suppress
from functools import cache

from tests.support.pages import PAGES, ROOT, Block, blocks
from tests.support.tools import missing_tool
from wsframe.cli import main
from wsframe.cli.program import COMMANDS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]
TARGETS = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
# A word that ends a command.
END = re.compile(r"[;&|<>()]+|\|\||&&")


def script(block: Block) -> str:
    """Return the commands of a block: of a terminal, the lines after a prompt."""
    joined = re.sub(r"\\\n\s*", " ", block.code)
    return "\n".join(line[2:] for line in joined.splitlines() if line.startswith("$ "))


def commands(text: str) -> list[list[str]]:
    """Return the words of each command."""
    found: list[list[str]] = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        for word in [*lexer, ";"]:
            if not END.fullmatch(word):
                words.append(word)
            elif words:
                found.append(words)
                words = []
    return found


@cache
def options(command: str) -> frozenset[str]:
    """Return the options in the help of a command of ``wsframe``."""
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(SystemExit):
        main([command, "--help"])
    return frozenset(re.findall(r"(?<![\w-])--?[a-z][\w-]*", printed.getvalue()))


def fault(words: list[str]) -> str | None:
    """Return the error in a command of this project; None for others, too."""
    while words and re.fullmatch(r"[A-Z_0-9]+=.*|sudo", words[0]):
        words = words[1:]
    program, *rest = words or [""]
    program = program.rpartition("/")[2]
    if program in ("python", "python3") and rest[:1] == ["-m"]:
        module, *rest = rest[1:]
        if module in ("wsframe", "wsframe.server"):
            program, rest = "wsframe", (rest if module == "wsframe" else ["serve", *rest])
        elif module == "pip":
            program = "pip"
        else:
            return None if _exists(module) else f"no module {module}"
    if program in ("python", "python3") and rest and rest[0].startswith("examples/"):
        return None if (ROOT / rest[0]).exists() else f"no file {rest[0]}"
    if program == "wsframe":
        return _fault_of_wsframe(rest)
    if program == "make":
        missing = [word for word in rest if "=" not in word and word not in TARGETS]
        return f"no target {missing}" if missing else None
    if program == "pip":
        extras = [name for word in rest for name in re.findall(r"[.e]\[(.*)\]", word)]
        missing = [name for names in extras for name in names.split(",") if name not in EXTRAS]
        return f"no extra {missing}" if missing else None
    return None


def _exists(module: str) -> bool:
    """Return True if a module of the repository exists, or a package of this environment."""
    path = ROOT / module.replace(".", "/")
    packages = importlib.util.find_spec(module.partition(".")[0])
    return path.exists() or path.with_suffix(".py").exists() or packages is not None


def _fault_of_wsframe(words: list[str]) -> str | None:
    command, *rest = words or [""]
    if command.startswith("-") or command not in COMMANDS:
        return None if command in ("", "--help", "--version") else f"no command {command}"
    known = options(command)
    wrong = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in known]
    return f"no option {wrong}" if wrong else None


def test_the_syntax_is_that_of_bash() -> None:
    bash = shutil.which("bash")
    if bash is None:
        missing_tool("bash")
    scripts = [f": {block}\n(\n{script(block)}\n:)\n" for block in blocks("console")]
    checked = subprocess.run([bash, "-n"], input="".join(scripts), capture_output=True, text=True)
    assert checked.stderr == ""


def test_commands_and_options_of_the_project_exist() -> None:
    faults = [
        f"{block}: {found} in {' '.join(words)}"
        for block in blocks("console")
        for words in commands(script(block))
        if (found := fault(words))
    ]
    assert faults == []


def test_extras_and_dependency_groups_of_the_text_exist() -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    extras = [name for names in re.findall(r"extra `(.+?)`|`(\S+?)` extra", text) for name in names]
    assert {name for name in extras if name} - {*EXTRAS} == set()
    assert {*re.findall(r"dependency group `(.+?)`", text)} - {*GROUPS} == set()


def test_wrong_commands_are_found() -> None:
    wrong = [
        "wsframe serve shop:app --prot 80",
        "python -m wsframe.server --bad",
        "wsframe sevre",
        "make documents",
        "pip install 'wsframe[sever]'",
        "python examples/nothing.py",
        "python -m no.module",
    ]
    assert [line for line in wrong if not fault(*commands(line))] == []
