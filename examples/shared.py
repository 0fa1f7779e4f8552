"""The chat in two processes that share a port and a Redis: ``python examples/shared.py``.

Members in both processes receive the same messages, even if a process is killed and replaced. The
program starts a Redis, or uses a running one: ``python examples/shared.py redis://localhost:6379``.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from chat import app


@contextmanager
def own_redis() -> Iterator[str]:
    """Run a Redis on a socket in a temporary directory, and yield its URL."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("redis-server was not found; pass the URL of a running Redis")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "redis.sock")
        command = [program, "--port", "0", "--unixsocket", str(path), "--dir", directory]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as redis:
            while not path.exists():
                time.sleep(0.05)
            yield f"unix://{path}"
            redis.terminate()


if __name__ == "__main__":
    with nullcontext(sys.argv[1]) if len(sys.argv) > 1 else own_redis() as url:
        app.share_topics(url)
        app.run(workers=2)
