"""The C files on their own, under sanitizers, including the loops that this CPU does not use."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.tools import missing_tool

HERE = Path(__file__).parent
NATIVE = HERE.parents[2] / "src" / "wsframe" / "native"


@pytest.mark.slow
def test_every_instruction_set_under_sanitizers(tmp_path: Path) -> None:
    """Compile the test with sanitizers, which abort it at the first error."""
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
