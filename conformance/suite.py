"""The reference suite: how it is installed, started, and read."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import AGENT, ROOT

VERSION = "25.10.1"
HOME = ROOT / ".venv-autobahn"
PYTHON = HOME / "bin" / "python"
LAUNCHER = Path(__file__).with_name("launch_suite.py")
NO_PYTHON2 = """\
autobahntestsuite {version} runs on Python 2.7 alone, and {name!r} is not there.
Name one that is: make autobahn PYTHON2=/path/to/python2.7"""


@dataclass(frozen=True)
class Result:
    """What the suite says of one case.

    Attributes:
        case: its number, as in "6.4.1".
        behavior: OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED or FAILED; MISSING if the suite has
            not reported on it.
        close: the same of how the connection was closed; this may be WRONG CODE, UNCLEAN or FAILED
            BY CLIENT, too.
        reason: why, in the suite's words.
    """

    case: str
    behavior: str
    close: str
    reason: str


def install(python2: str) -> None:
    """Install the suite into a virtual environment of its own, unless it is there."""
    stamp = HOME / f"installed-{VERSION}"
    if stamp.exists():
        return
    if shutil.which(python2) is None:
        sys.exit(NO_PYTHON2.format(version=VERSION, name=python2))
    print(f"Setting up {HOME.name} for the suite; the first time takes a minute.", flush=True)
    virtualenv = [sys.executable, "-m", "virtualenv", "--quiet", "--clear", "--python", python2]
    subprocess.run([*virtualenv, str(HOME)], check=True)
    pip = [str(PYTHON), "-m", "pip", "--no-python-version-warning", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-qq", f"autobahntestsuite=={VERSION}"], check=True)
    stamp.touch()


def command(mode: str, spec: dict[str, Any], folder: Path, messages: int) -> list[str]:
    """The command that runs the suite, which reports into the folder.

    Args:
        mode: "fuzzingclient" or "fuzzingserver".
        spec: what the mode needs to know, but for the folder.
        folder: where its reports and its files go.
        messages: how many each case of sections 12 and 13 exchanges.
    """
    path = folder / "spec.json"
    path.write_text(json.dumps({**spec, "outdir": str(folder)}))
    wstest = ["--mode", mode, "--spec", str(path), "--webport", "0"]
    return [str(PYTHON), "-u", str(LAUNCHER), str(messages), *wstest]


def read_results(folder: Path, log: Path) -> list[Result]:
    """What the suite has reported on each case that it set out to run, as it says in its log."""
    said = re.search(r"^Cases = (.*)$", log.read_text(), re.MULTILINE)
    cases = ast.literal_eval(said[1]) if said else []
    if not cases:
        sys.exit(f"the suite has no such cases, or did not start; see {log}")
    index = folder / "index.json"
    reports = json.loads(index.read_text()).get(AGENT, {}) if index.exists() else {}
    return [_read_result(folder, case, reports.get(case)) for case in cases]


def _read_result(folder: Path, case: str, report: dict[str, Any] | None) -> Result:
    if report is None:
        return Result(case, "MISSING", "MISSING", f"The suite has no report; see {folder}.")
    details = json.loads((folder / report["reportfile"]).read_text())
    reason = f"{details['result']} {details['resultClose']}"
    return Result(case, details["behavior"], details["behaviorClose"], reason)
