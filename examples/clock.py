"""The time on a web page: ``python examples/clock.py``, then http://localhost:9292.

A thread puts the time on a plain queue; each page receives it as an event.
"""

import threading
import time
from queue import Queue

from wsframe.server import App

PAGE = """<!doctype html><meta charset="utf-8"><title>Clock</title>
<link rel="icon" href="data:,">
<style>body { font: 4rem system-ui; display: grid; place-items: center; height: 90vh }</style>
<output>...</output>
<script>
  new EventSource("/time").onmessage = (event) =>
    document.querySelector("output").value = event.data;
</script>"""

app = App()
ticks: Queue[str] = Queue()
app.page("/", PAGE)
app.sse("/time", source=ticks)


@app.on_start
def start() -> None:
    """Start the clock in each process that serves the app."""
    threading.Thread(target=tick, daemon=True).start()


def tick() -> None:
    """Put the time on the queue once a second."""
    while True:
        ticks.put(time.strftime("%H:%M:%S"))
        time.sleep(1 - time.time() % 1)


if __name__ == "__main__":
    app.run()
