"""A job that reports its progress to whoever watches: ``python examples/progress.py``."""

import threading
import time
from queue import Queue

from wsframe.server import App

PAGE = """<!doctype html><meta charset="utf-8"><title>Progress</title>
<progress max="100" value="0"></progress>
<script>
  new EventSource("/progress").onmessage = (event) =>
    document.querySelector("progress").value = JSON.parse(event.data).done;
</script>"""

app = App()
progress: Queue[dict[str, int]] = Queue()
app.page("/", PAGE)
app.sse("/progress", source=progress)


def work() -> None:
    """Do the job, again and again; the queue is all that it knows of the server."""
    while True:
        for done in range(101):
            progress.put({"done": done})
            time.sleep(0.1)


if __name__ == "__main__":
    threading.Thread(target=work, daemon=True).start()
    app.run()
