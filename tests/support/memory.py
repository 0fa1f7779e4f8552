"""What a piece of work costs in memory, in a process of its own, where nothing hides it."""

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
    """The peak that is allowed, in bytes, where so much may be in use."""
    if HAS_SANITIZERS:  # which keep what is freed for a while
        return size + 128 * MIB
    if not HAS_GIL:  # mimalloc moves what grows, and keeps for a while what it has left
        return 4 * size + 8 * MIB
    return size


def in_fresh_process(pure: bool, function: Callable[..., T], *arguments: object) -> T:
    """What the function returns in a new process, on the kernels asked for.

    It is found again by its name, in a module that should import little.
    """
    environment = {**os.environ, "WSFRAME_PURE": "1" if pure else "0"}
    environment.pop("COVERAGE_PROCESS_CONFIG", None)  # which takes memory of its own
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
    """The other side of :func:`in_fresh_process`."""
    function, arguments = pickle.load(sys.stdin.buffer)
    pickle.dump(function(*arguments), sys.stdout.buffer)


class Growth:
    """A context manager: how much memory a process takes within at most, beyond what it had.

    Args:
        pid: which process; of another than this one only Linux tells.

    Attributes:
        size: in bytes, once it is left.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._process = Path("/proc", "self" if pid is None else str(pid))

    def __enter__(self) -> Growth:
        if sys.platform == "linux":
            (self._process / "clear_refs").write_text("5")  # the peak begins anew
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
    """A size out of a process's status in /proc, in bytes."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise LookupError(field)
