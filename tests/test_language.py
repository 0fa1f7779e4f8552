"""Docstrings, comments, messages and documents keep to the language rules of CONTRIBUTING.md."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tools.language import RULES, check, check_all, folder, long_sentences
from tools.sample import draw
from tools.texts import ROOT, Text, files, read, read_all, sentences

pytestmark = pytest.mark.unmeasured

# The words of a sentence; about 25 is the aim.
LONGEST = 30

# A text that breaks each rule.
BROKEN = {
    "subject": "It waits. Who wakes it sends more.",
    "tell": "the client is told the reason",
    "say": "the header says how long it is",
    "person": "nobody waits for it",
    "return": "a client that comes back",
    "is to": "the data that is to be sent",
    "stand": "the code stands behind the length",
    "none": "a number that is none",
    "there": "the file is not there.",
    "no form": "UTF-8 has no form for it",
    "for": "it is closed, for the client has left",
    "but for": "all but for the last",
    "in order": "everything is in order",
    "headless": "What is left is sent later.",
    "those": "those that wait",
    "of which": "a frame of which a part is missing",
    "owe": "an answer is owed",
    "in vain": "it looks in vain",
    "defect": "a defect in the server",
    "metaphor": "the loop goes on",
}
PLAIN = (
    "Return the bytes that follow the frame.",
    "RFC 6455 says that a control frame has at most 125 bytes",
    "The events arrive in order, for example after a reconnect.",
    "A limit, for each address, of the connections without a request.",
    "The loop continues because another thread owns it.",
    "Compare what the client sends with the expected bytes.",
    "It is no longer open, and there is room.",
    "A stand-in for the socket.",
    "``nobody says what is left``",
)


def names(kind: str, text: str) -> list[str]:
    """Return the names of the rules that a text breaks."""
    return [finding.rule.name for finding in check(Text(ROOT, 1, kind, text))]


def written(folder: Path, name: str, source: str) -> list[tuple[int, str, str]]:
    """Return the texts of a file with this content."""
    path = folder / name
    path.write_text(source)
    return [text[1:] for text in read(path)]


@pytest.mark.slow
def test_no_text_has_a_banned_phrase_or_a_sentence_that_is_too_long() -> None:
    texts = read_all(files([]))
    found = [str(finding) for finding in check_all(texts)]
    long = [
        f"{folder(text.path)}:{text.line}: {sentence}"
        for text, sentence in long_sentences(texts, LONGEST)
    ]
    assert not found + long, "\n".join(["", *found, *long])


def test_every_rule_finds_its_phrase() -> None:
    assert {rule.name for rule in RULES} == set(BROKEN)
    assert {name: names("comment", text) for name, text in BROKEN.items()} == {
        name: [name] for name in BROKEN
    }


@pytest.mark.parametrize("text", PLAIN)
def test_plain_english_breaks_no_rule(text: str) -> None:
    assert names("docstring", text) == []


@pytest.mark.parametrize(
    "opening", ["What the loop polls.", "Whether it waits.", "Any thread: how many are open."]
)
def test_a_docstring_must_not_begin_with_a_question_word(opening: str) -> None:
    assert names("docstring", opening) == ["opening"]
    assert "opening" not in names("comment", opening)


def test_an_argument_is_described_by_a_noun() -> None:
    docstring = "Open it.\n\n    Args:\n        name: of the file.\n        size: the size.\n    "
    assert names("docstring", docstring) == ["argument"]


def test_texts_of_python_are_found(tmp_path: Path) -> None:
    source = '''"""Module docstring."""

# One comment
# on two lines.
x = 1  # another comment


def test_a_name() -> None:
    """Function docstring."""
    log.info("a line of %s", "the log")
    raise ValueError(f"an error in {x!r}" " and more")
    data = "other words"
    parser.add_argument(help="a help text")
'''
    assert written(tmp_path, "module.py", source) == [
        (1, "docstring", "Module docstring."),
        (3, "comment", "One comment on two lines."),
        (5, "comment", "another comment"),
        (8, "name", "a name"),
        (9, "docstring", "Function docstring."),
        (10, "message", "a line of %s"),
        (10, "message", "the log"),
        (11, "message", "an error in {} and more"),
        (12, "string", "other words"),
        (13, "message", "a help text"),
    ]


def test_texts_of_cython_and_c_are_found(tmp_path: Path) -> None:
    cython = 'cdef int one():\n    """A docstring."""\n    raise ValueError("a message")  # why\n'
    assert written(tmp_path, "module.pyx", cython) == [
        (2, "docstring", "A docstring."),
        (3, "comment", "why"),
        (3, "message", "a message"),
    ]
    assert written(tmp_path, "unit.c", "int x; /* one\n * two */\nint y; // three\n") == [
        (1, "comment", "one two"),
        (3, "comment", "three"),
    ]


def test_texts_of_markdown_are_found_without_code(tmp_path: Path) -> None:
    source = "# A title\n\nSome `code` and\nwords.\n\n```python\nx = 1  # a comment\n```\n"
    assert written(tmp_path, "page.md", source) == [
        (1, "prose", "# A title"),
        (3, "prose", "Some `code` and words."),
        (7, "comment", "a comment"),
    ]


def test_comments_of_a_makefile_are_found(tmp_path: Path) -> None:
    assert written(tmp_path, "Makefile", "all: ## a help text\n\t@echo\n# a comment\n") == [
        (1, "comment", "a help text"),
        (3, "comment", "a comment"),
    ]


def test_a_text_is_split_into_sentences() -> None:
    text = "One ``a. b`` sentence. Another:\n\n    name: the third; the fourth"
    assert sentences(text) == [
        "One code sentence.",
        "Another:",
        "name:",
        "the third;",
        "the fourth",
    ]


def test_a_sample_depends_only_on_its_seed() -> None:
    texts = [Text(ROOT, n, "comment", f"comment number {n}") for n in range(100)]
    texts += [Text(ROOT, n, "comment", "too short") for n in range(100)]
    first, again, other = (draw(texts, "comment", 20, Random(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 20
    assert all(len(text.text.split()) == 3 for text in first)
    assert draw(texts, "docstring", 20, Random(1)) == []
