"""Print texts drawn at random: ``python -m tools.sample --seed 1``.

Each docstring, message and comment must be clear to a reader who knows RFC 6455 but not the file.
A message is printed alone. A docstring is printed with its definition, and a comment with its line.
"""

from __future__ import annotations

import argparse
import itertools
import linecache
import re
import sys
from random import Random

from tools.texts import Text, files, read_all

KINDS = ("docstring", "message", "comment")
SHORTEST = 3  # words; a shorter text has no sentence
DEFINITION = re.compile(r"(async |c|cp)?(def|class)\b|cdef\b")


def draw(texts: list[Text], kind: str, size: int, random: Random) -> list[Text]:
    """Return at most ``size`` texts of a kind, each with several words."""
    candidates = [t for t in texts if t.kind == kind and len(t.text.split()) >= SHORTEST]
    return random.sample(candidates, min(size, len(candidates)))


def code_of(text: Text) -> str:
    """Return the code that a reader sees with a text; "" for a module's docstring and a message."""
    if text.kind == "docstring":
        lines: list[str] = []
        for number in range(text.line - 1, 0, -1):
            lines.insert(0, linecache.getline(str(text.path), number).strip())
            if DEFINITION.match(lines[0]):
                return " ".join(lines)
        return ""
    if text.kind == "comment":
        for number in itertools.count(text.line):
            line = linecache.getline(str(text.path), number)
            code = line.partition("#")[0].strip()
            if code or not line:
                return code
    return ""


def main() -> int:
    """Print the sample and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.sample", description=__doc__)
    parser.add_argument("names", metavar="FILE", nargs="*", help="files or folders; default: src")
    parser.add_argument("--seed", type=int, default=1, help="of the random choice (%(default)s)")
    parser.add_argument("--size", type=int, default=20, help="texts of each kind (%(default)s)")
    arguments = parser.parse_args()
    random = Random(arguments.seed)
    texts = read_all(files(arguments.names or ["src"]))
    for kind in KINDS:
        print(f"\n{kind.upper()}S\n")
        for text in draw(texts, kind, arguments.size, random):
            print(f"{text.path}:{text.line}")
            if code := code_of(text):
                print(f"    [{code}]")
            print(f"    {text.text.strip()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
