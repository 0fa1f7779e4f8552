"""The reference suite: installing it, starting it, and reading its results."""

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
autobahntestsuite {version} requires Python 2.7, and {name!r} was not found.
Name an interpreter: make autobahn PYTHON2=/path/to/python2.7"""


@dataclass(frozen=True)
class Result:
    """The suite's result for one case.

    Attributes:
        case: its number, as in "6.4.1".
        behavior: OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED or FAILED; MISSING without a report.
        close: the result for the closing handshake, which may also be WRONG CODE, UNCLEAN or FAILED
            BY CLIENT.
        reason: the suite's explanation.
    """

    case: str
    behavior: str
    close: str
    reason: str


def install(python2: str) -> None:
    """Install the suite into its own virtual environment, unless it is installed."""
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
    """Return the command that runs the suite and writes reports into the folder.

    Args:
        mode: "fuzzingclient" or "fuzzingserver".
        spec: the specification for the mode, without the folder.
        folder: the folder for its reports and files.
        messages: the number of messages in each case of sections 12 and 13.
    """
    path = folder / "spec.json"
    path.write_text(json.dumps({**spec, "outdir": str(folder)}))
    wstest = ["--mode", mode, "--spec", str(path), "--webport", "0"]
    return [str(PYTHON), "-u", str(LAUNCHER), str(messages), *wstest]


def read_results(folder: Path, log: Path) -> list[Result]:
    """Return the result of each case that the suite lists in its log."""
    listing = re.search(r"^Cases = (.*)$", log.read_text(), re.MULTILINE)
    cases = ast.literal_eval(listing[1]) if listing else []
    if not cases:
        sys.exit(f"the suite found no such cases, or did not start; see {log}")
    index = folder / "index.json"
    reports = json.loads(index.read_text()).get(AGENT, {}) if index.exists() else {}
    return [_read_result(folder, case, reports.get(case)) for case in cases]


def _read_result(folder: Path, case: str, report: dict[str, Any] | None) -> Result:
    if report is None:
        return Result(case, "MISSING", "MISSING", f"The suite has no report; see {folder}.")
    details = json.loads((folder / report["reportfile"]).read_text())
    reason = f"{details['result']} {details['resultClose']}"
    return Result(case, details["behavior"], details["behaviorClose"], reason)
