"""The C units by themselves, under sanitizers: also those that this CPU would not choose."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.tools import missing_tool

HERE = Path(__file__).parent
NATIVE = HERE.parents[2] / "src" / "wsframe" / "native"


def test_every_unit_does_what_is_defined(tmp_path: Path) -> None:
    """Compiled with sanitizers, which end it at the first fault."""
    compiler = shutil.which("cc")
    if compiler is None:
        missing_tool("cc, a C compiler,")
    program = tmp_path / "native_test"
    subprocess.run(
        [
            compiler,
            *("-O2", "-g", "-Wall", "-Wextra", "-Werror"),
            *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
            f"-I{NATIVE}",
            str(HERE / "native_test.c"),
            *map(str, sorted(NATIVE.glob("*.c"))),
            *("-o", str(program)),
        ],
        check=True,
    )
    result = subprocess.run([program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "portable\nSHA-1 portable\n" in result.stdout
