"""Memory measurements, each in a new process, so that nothing hides the result."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[2]
PROGRAM = "from tests.support.memory import main; main()"

T = TypeVar("T")

MIB = 1 << 20
HAS_SANITIZERS = "ASAN_OPTIONS" in os.environ  # as in `make sanitize`
HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")


def at_most(size: int) -> int:
    """Return the allowed peak, in bytes, for this amount of memory in use."""
    if HAS_SANITIZERS:  # sanitizers delay the freeing of memory
        return size + 128 * MIB
    if not HAS_GIL:  # mimalloc copies growing blocks, and delays the freeing of the old ones
        return 4 * size + 8 * MIB
    return size


def in_fresh_process(pure: bool, function: Callable[..., T], *arguments: object) -> T:
    """Run the function in a new process, on the given kernels; return its result.

    The new process finds it by its name, so its module should import little.
    """
    environment = {**os.environ, "WSFRAME_PURE": "1" if pure else "0"}
    environment.pop("COVERAGE_PROCESS_CONFIG", None)  # coverage takes memory
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        input=pickle.dumps((function, arguments)),
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=environment,
        timeout=3600,
    )
    assert done.returncode == 0, done.stderr.decode()
    result: T = pickle.loads(done.stdout)
    return result


def main() -> None:
    """The program of :func:`in_fresh_process`."""
    function, arguments = pickle.load(sys.stdin.buffer)
    pickle.dump(function(*arguments), sys.stdout.buffer)


class Growth:
    """A context manager that measures the most additional memory of a process within it.

    Args:
        pid: the process; None for this one. Other processes can be measured only on Linux.

    Attributes:
        size: the result in bytes, after the end of the context.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._process = Path("/proc", "self" if pid is None else str(pid))

    def __enter__(self) -> Growth:
        if sys.platform == "linux":
            (self._process / "clear_refs").write_text("5")  # resets the peak
        self._before = self._peak()
        return self

    def __exit__(self, *_: object) -> None:
        self.size = self._peak() - self._before

    def _peak(self) -> int:
        if sys.platform == "linux":
            return status(self._process, "VmHWM")
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak << 10


def status(process: Path, field: str) -> int:
    """Return a size from a process's status in /proc, in bytes."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise LookupError(field)
