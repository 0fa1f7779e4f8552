"""Run Python on kernels built with sanitizers: ``python -m fuzz.sanitized -m pytest ...``.

The exit status is 1 if the sanitizers report anything, regardless of the process' own status.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

REPORTS = Path("build/sanitize")


def main() -> int:
    """Return the exit status."""
    (kernels,) = Path(sysconfig.get_path("platlib"), "wsframe").glob("_kernels.*.so")
    if not all(mark in kernels.read_bytes() for mark in (b"__asan_init", b"__ubsan_handle")):
        sys.exit(f"{kernels} was not built with WSFRAME_SANITIZE=address,undefined")
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    reports = f"log_path={REPORTS.absolute()}/report"
    environment = {
        **os.environ,
        # The interpreter was not built with sanitizers, so their runtimes must be loaded first.
        "LD_PRELOAD": " ".join(map(library, ("libasan.so", "libubsan.so"))),
        # CPython does not free all memory at its exit.
        "ASAN_OPTIONS": f"{reports}:detect_leaks=0:quarantine_size_mb=64",
        "UBSAN_OPTIONS": f"{reports}:halt_on_error=1:print_stacktrace=1",
        # Allocate each object separately, so that an access past its end is found.
        "PYTHONMALLOC": "malloc",
    }
    done = subprocess.run([sys.executable, *sys.argv[1:]], env=environment, check=False)
    found = sorted(REPORTS.iterdir())
    for report in found:
        print(report.read_text(errors="replace"))
    print(f"{len(found)} reports by the sanitizers, exit status {done.returncode}")
    return 1 if found or done.returncode else 0


def library(name: str) -> str:
    """Return the path of one of the compiler's libraries."""
    compiler = os.environ.get("CC", "cc")
    asked = [compiler, f"-print-file-name={name}"]
    path = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    if not os.path.isabs(path):
        sys.exit(f"{compiler} has no {name}")
    return path


if __name__ == "__main__":
    sys.exit(main())
