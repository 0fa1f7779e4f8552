"""The chat in two processes that share a port, and a Redis: ``python examples/shared.py``.

Whichever process a member is connected to, all see the same; kill one and watch. It starts a Redis
of its own, or uses one: ``python examples/shared.py redis://localhost:6379/0``.
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
    """A Redis that listens on a socket in a directory of its own; its URL."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("There is no redis-server here; give the URL of one that runs somewhere.")
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
