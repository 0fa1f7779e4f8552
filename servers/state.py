"""The resources of the process that serves an application, as it reports them itself."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

KIB = 1 << 10


@dataclass(frozen=True)
class State:
    """The resources of a process.

    Attributes:
        pid: its process id.
        threads: its number of threads.
        files: its number of open files.
        memory: its resident memory, in bytes.
        seconds: its processor time.
    """

    pid: int
    threads: int
    files: int
    memory: int
    seconds: float

    @classmethod
    def of_this_process(cls) -> State:
        """Return the resources of this process."""
        used = os.times()
        memory = next(
            int(line.split()[1]) * KIB
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmRSS:")
        )
        return cls(
            pid=os.getpid(),
            threads=len(os.listdir("/proc/self/task")),
            files=len(os.listdir("/proc/self/fd")),
            memory=memory,
            seconds=used.user + used.system,
        )

    def encode(self) -> bytes:
        """Return the body of the page ``/state``."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, body: bytes) -> State:
        """Return the resources from the body of the page ``/state``."""
        return cls(**json.loads(body))
