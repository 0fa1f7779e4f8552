"""Messages about closed identities that no process of ours has sent."""

from __future__ import annotations

import pytest

#: The log line about each of them, without the reason.
DROPPING = "dropping an invalid closing of an identity by another process: "

INVALID_CLOSINGS = [
    pytest.param("[", id="no JSON"),
    pytest.param("[1]", id="too few values"),
    pytest.param('["x", "ann", 1008, "", ""]', id="too many values"),
    pytest.param('["x", "ann", null, ""]', id="no code"),
    pytest.param('["x", "ann", "1008", ""]', id="a text as code"),
    pytest.param('["x", "ann", true, ""]', id="a bool as code"),
    pytest.param('["x", "ann", 9, ""]', id="a reserved code"),
    pytest.param('["x", "ann", Infinity, ""]', id="an infinite code"),
    pytest.param(f'["x", "ann", 1{"0" * 400}, ""]', id="a huge code"),
    pytest.param('["x", "ann", 1008, null]', id="no reason"),
    pytest.param(f'["x", "ann", 1008, "{"r" * 124}"]', id="a long reason"),
    pytest.param('["x", "ann", 1008, "\\ud800"]', id="a reason that is not Unicode"),
    pytest.param('["x", null, 1008, ""]', id="no identity"),
    pytest.param('["x", ["ann"], 1008, ""]', id="a list of identities"),
    pytest.param('["x", "", 1008, ""]', id="an empty identity"),
    pytest.param(f'["x", "{"a" * 513}", 1008, ""]', id="a long identity"),
    pytest.param('["x", "\\ud800", 1008, ""]', id="an identity that is not Unicode"),
    pytest.param("[" * 100_000, id="nested too deeply"),
]
