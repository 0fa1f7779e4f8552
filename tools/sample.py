"""Print texts drawn at random, to be read alone: ``python -m tools.sample --seed 1``.

Each docstring, message and comment must be clear to a reader who knows RFC 6455 but not the file.
"""

from __future__ import annotations

import argparse
import linecache
import sys
from random import Random

from tools.texts import Text, files, read_all

KINDS = ("docstring", "message", "comment")
SHORTEST = 3  # words; a shorter text has no sentence


def draw(texts: list[Text], kind: str, size: int, random: Random) -> list[Text]:
    """Return at most ``size`` texts of a kind, each with several words."""
    candidates = [t for t in texts if t.kind == kind and len(t.text.split()) >= SHORTEST]
    return random.sample(candidates, min(size, len(candidates)))


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
            code, _, _ = linecache.getline(str(text.path), text.line).partition("#")
            if kind == "comment" and code.strip():
                print(f"    {code.strip()}")
            print(f"    {text.text.strip()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
