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
    "load": ("load.c", "client.c", "measure.c", "plain.c"),
    "load_tls": ("load.c", "client.c", "measure.c", "tls.c"),
    "broadcast": ("broadcast.c", "stream.c", "client.c", "measure.c", "plain.c"),
    "limit": ("limit.c",),
}
LIBRARIES = {"load_tls": ("-lssl", "-lcrypto")}
TLS_HEADER = "openssl/ssl.h"


def program(name: str) -> Path:
    """Return the path of one of UNITS; compile it if a source is newer."""
    target = BUILT / name
    newest = max(source.stat().st_mtime for source in HERE.glob("*.[ch]"))
    if not target.exists() or target.stat().st_mtime < newest:
        BUILT.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}")
        compiler = shlex.split(os.environ.get("CC", "cc"))
        if name in LIBRARIES and not _has_header(compiler, TLS_HEADER):
            sys.exit(
                f"cannot build the load over TLS: no C compiler with {TLS_HEADER} (on Debian, "
                "install gcc and libssl-dev; or choose scenarios without TLS by --scenario)"
            )
        options = ("-O3", "-march=native", "-Wall", "-Wextra", "-o", fresh)
        sources = [HERE / unit for unit in UNITS[name]]
        try:
            subprocess.run([*compiler, *options, *sources, *LIBRARIES.get(name, ())], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"cannot build {name}, which needs a C compiler (on Debian, gcc): {error}")
        fresh.replace(target)
    return target


def _has_header(compiler: list[str], header: str) -> bool:
    source = f"#include <{header}>\n"
    try:
        return not subprocess.run(
            [*compiler, "-E", "-x", "c", "-"], input=source, capture_output=True, text=True
        ).returncode
    except OSError:
        return False
