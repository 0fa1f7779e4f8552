"""Find phrases that break the language rules: ``python -m tools.language [FILE ...]``.

The rules are explained in CONTRIBUTING.md. The exit status is 1 if a text breaks one. ``--count``
prints a number for each folder and each rule, ``--long WORDS`` lists long sentences.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tools.texts import ROOT, Text, files, read_all, sentences

VERB = "(?:is|are|was|were|has|have|had|may|must|would|will|do|does|did|can|cannot|could|should)"
INFINITIVE = (
    "(?:be|end|go|stop|send|wait|begin|start|have|get|do|come|run|see|read|write|close|keep|hold"
    "|receive|answer|take|know|hear)"
)


class Rule(NamedTuple):
    """A kind of phrase that has a plainer equivalent.

    Attributes:
        name: the rule in a word or two.
        pattern: a regular expression over a text on one line.
        advice: the word to use instead.
    """

    name: str
    pattern: re.Pattern[str]
    advice: str


def _rule(name: str, pattern: str, advice: str, flags: re.RegexFlag = re.IGNORECASE) -> Rule:
    return Rule(name, re.compile(pattern, flags), advice)


# Files that quote the phrases.
EXEMPT = {ROOT / "tools" / "language.py", ROOT / "tests" / "test_language.py"}

OPENING = re.compile(
    r"^\s*(?:(?:Owner|[A-Z][\w' ]*(?:thread|owner|loop|process))\b[\w, ]*: )?"
    r"(?i:what|who|whose|whom|whether|how|that|where|which|why|whatever|whoever)\b"
)
# The description of an argument or attribute that does not name it.
ARGUMENT = re.compile(r"\n\s+\*{0,2}\w+: (?:of|what|who|whom|that|those)\b[^\n]*")
ARGUMENT_RULE = Rule("argument", ARGUMENT, "name the thing: 'name: the name of the topic'")
OPENING_RULE = Rule("opening", OPENING, "begin with a noun, an imperative verb or 'True if'")

RULES = (
    _rule(
        "tell",
        r"\b(?:told|tells?|telling)\b",
        "send, inform, notify, show, distinguish",
    ),
    _rule(
        "say",
        r"(?<!RFC \d{4} )\b(?:said|says?|saying)\b",
        "state, contain, name, describe, require",
    ),
    _rule(
        "person",
        r"\b(?:nobody|somebody|everybody|anybody|whoever|whom|whatever)\b",
        "name the client, the thread or the caller",
    ),
    _rule("return", r"\bcom(?:es?|ing) back\b|\bcame back\b", "reconnect, return, resume"),
    _rule(
        "is to",
        rf"\b(?:is|are|was|were) (?:not )?to {INFINITIVE}\b|\b(?:has|have|had|is) yet to\b",
        "must, will, should, has not yet",
    ),
    _rule("stand", r"\b(?<!-)(?:stands?|stood|standing)\b(?!-)", "appear, be, mean, stop"),
    _rule(
        "none",
        r"\b(?:is|are|was|were|be) none\b|\bthat (?:is|are|was|were) no (?!longer|more|less|later)"
        r"|\b(?:if|where|unless) there is one\b",
        "invalid, missing, not a ..., no ... exists",
        re.NOFLAG,
    ),
    _rule(
        "there",
        r"\b(?:is|are|was|were|be) (?:not |no longer |still )?(?:there|here)(?=[.,;:)]|$)",
        "exist, be present, be available, be connected",
    ),
    _rule("no form", r"\bno (?:form|name) for\b", "cannot encode, cannot represent"),
    _rule(
        "for",
        r", for (?:they|he|she|we|there|it|nobody|nothing|that|this|what)\b"
        rf"(?: (?!that\b|which\b|who\b|whose\b|when\b|where\b|if\b)[\w'-]+){{0,3}}? {VERB}\b"
        r"|, for (?:they|he|she|we|there|nobody)\b"
        r"|, for (?:the|a|an|no|only|others|all|each|its) (?:(?!that\b|which\b|who\b|whose\b|when\b"
        rf"|where\b|if\b)[\w'-]+ ){{0,3}}?{VERB} ",
        "because",
    ),
    _rule("but for", r"\bbut for\b", "except"),
    _rule(
        "in order",
        r"\b(?:is|are|was|were|be|everything) in order\b(?! (?:to|of)\b)",
        "valid, correct",
    ),
    _rule(
        "headless",
        r"(?:^|[.,;:(!] |\b(?:of|for|with|from|and|or|by|to|as|than|in|on) )what "
        r"(?:is|are|was|were|has|have|had|comes?|came|goes|went|waits?|must|can|cannot|may|follows"
        r"|remains|needs?|lasts?|belongs?)\b(?! [^.;:!]*\?)",
        "name the thing: data, bytes, entry, request, the rest",
    ),
    _rule("those", r"\bthose (?:that|who)\b", "repeat the noun"),
    _rule(
        "of which", r"(?<!\beach )(?<!\ball )(?<!\bboth )(?<!\bsome )\bof which\b", "two sentences"
    ),
    _rule(
        "owe",
        r"\bow(?:e|es|ed|ing)\b|\bspeaks?\b|\bspoken?\b|\bspeaking\b|\bhears?\b|\bheard\b",
        "send, support, receive, be due",
    ),
    _rule("in vain", r"\bin vain\b", "without a result, an empty poll"),
    _rule("defect", r"\ba defect in\b", "internal error (please report this)"),
    _rule(
        "metaphor",
        r"\bat ease\b|\bgoodbyes?\b|\blets? go\b|\bletting go\b|\bgo(?:es|ing)? on\b|\bwent on\b"
        r"|\b(?:is|are) away\b|\bby now\b|\borphans?\b|\bpass(?:es|ed)? by\b",
        "continue, disconnect, caught up, close",
    ),
    _rule(
        "subject",
        r"(?:^|[.;] )(?:What|Who|Whether)\b(?![^.]*\?)",
        "the subject of a sentence is a noun",
        re.NOFLAG,
    ),
)


class Finding(NamedTuple):
    """A phrase in a text, and the rule that it breaks."""

    text: Text
    rule: Rule
    phrase: str

    def __str__(self) -> str:
        path = self.text.path
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        return f"{name}:{self.text.line}: {self.rule.name} ({self.rule.advice}): {self.phrase}"


def check(text: Text) -> Iterator[Finding]:
    """Return the phrases in one text that break a rule; no two of them overlap."""
    plain = " ".join(re.sub(r"``.*?``", "code", text.text, flags=re.DOTALL).split())
    spans: list[tuple[int, int]] = []
    if text.kind == "docstring":
        if opening := OPENING.match(plain):
            spans.append(opening.span())
            yield Finding(text, OPENING_RULE, plain[:70])
        for match in ARGUMENT.finditer(text.text):
            yield Finding(text, ARGUMENT_RULE, match[0].strip())
    for rule in RULES:
        for match in rule.pattern.finditer(plain):
            begin, end = match.span()
            if all(end <= first or last <= begin for first, last in spans):
                spans.append((begin, end))
                around = plain[max(0, begin - 30) : end + 30]
                yield Finding(text, rule, f"...{around}...")


def check_all(texts: Iterable[Text]) -> Iterator[Finding]:
    """Return the phrases in these texts that break a rule."""
    for text in texts:
        if text.path.resolve() not in EXEMPT:
            yield from check(text)


def long_sentences(texts: Iterable[Text], words: int) -> Iterator[tuple[Text, str]]:
    """Return the sentences that have more words, with their texts."""
    for text in texts:
        if text.kind not in ("string", "name"):
            for sentence in sentences(text.text):
                if len(sentence.split()) > words:
                    yield text, sentence


def folder(path: Path) -> str:
    """Return the folder for the count of a file: three levels of src, one elsewhere."""
    parts = path.resolve().relative_to(ROOT).parts
    if parts[0] == "src":
        return "/".join(parts[:3] if len(parts) > 3 else parts[:2])
    return parts[0]


def main() -> int:
    """Return the exit status: 1 if a text breaks a rule."""
    parser = argparse.ArgumentParser(prog="python -m tools.language", description=__doc__)
    parser.add_argument("names", metavar="FILE", nargs="*", help="files or folders; default: all")
    parser.add_argument("--count", action="store_true", help="print a number for each folder")
    parser.add_argument("--long", type=int, metavar="WORDS", help="list longer sentences instead")
    arguments = parser.parse_args()
    texts = read_all(files(arguments.names))
    if arguments.long:
        return _list_long(texts, arguments.long, count=arguments.count)
    findings = list(check_all(texts))
    if arguments.count:
        _print_counts(folder(finding.text.path) for finding in findings)
        _print_counts(finding.rule.name for finding in findings)
    else:
        print(*findings, sep="\n")
    print(f"{len(findings)} phrases")
    return 1 if findings else 0


def _list_long(texts: list[Text], words: int, *, count: bool) -> int:
    found = list(long_sentences(texts, words))
    if count:
        _print_counts(folder(text.path) for text, _ in found)
    else:
        for text, sentence in found:
            print(f"{text.path}:{text.line}: {sentence}")
    print(f"{len(found)} sentences of more than {words} words")
    return 0


def _print_counts(names: Iterable[str]) -> None:
    for name, number in sorted(Counter(names).items()):
        print(f"{number:6} {name}")


if __name__ == "__main__":
    sys.exit(main())
