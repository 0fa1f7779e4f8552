"""The loads and the limit of the server benchmarks, in C, compiled on first use."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILT = HERE.parents[1] / "build" / "bench"
UNITS = {
    "load": ("load.c", "client.c", "measure.c"),
    "broadcast": ("broadcast.c", "stream.c", "client.c", "measure.c"),
    "limit": ("limit.c",),
}


def program(name: str) -> Path:
    """Return the path of one of UNITS; compile it if a source is newer."""
    target = BUILT / name
    newest = max(source.stat().st_mtime for source in HERE.glob("*.[ch]"))
    if not target.exists() or target.stat().st_mtime < newest:
        BUILT.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}")
        compiler = shlex.split(os.environ.get("CC", "cc"))
        options = ("-O3", "-march=native", "-Wall", "-Wextra", "-o", fresh)
        sources = [HERE / unit for unit in UNITS[name]]
        try:
            subprocess.run([*compiler, *options, *sources], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"The server bench needs a C compiler: {error}")
        fresh.replace(target)
    return target
