"""A dashboard of the newest numbers: ``python examples/dashboard.py``, http://localhost:9292.

With the policy "latest" a slow client skips outdated numbers, and a new client begins with the
newest of each name.
"""

import random
import threading
import time

from wsframe.server import App, EventStream

PAGE = """<!doctype html><meta charset="utf-8"><title>Dashboard</title>
<link rel="icon" href="data:,">
<style>
  body { font: 1.5rem system-ui; margin: 2rem auto; width: max-content }
  td { padding: .2rem 1rem; font-variant-numeric: tabular-nums } td + td { text-align: right }
</style>
<table></table>
<script>
  const cells = {};
  new EventSource("/numbers").onmessage = (event) => {
    const {name, value} = JSON.parse(event.data);
    if (!cells[name]) {
      const row = document.querySelector("table").insertRow();
      row.insertCell().textContent = name;
      cells[name] = row.insertCell();
    }
    cells[name].textContent = value.toFixed(1);
  };
</script>"""

app = App()
numbers = app.topic("numbers", policy="latest")
app.page("/", PAGE)


@app.sse("/numbers")
def stream_numbers(stream: EventStream) -> None:
    """Begin with the newest number of each name; an idle stream uses no thread."""
    stream.subscribe(numbers, after="")


@app.on_start
def start() -> None:
    """Start measuring in each process that serves the app."""
    threading.Thread(target=measure, daemon=True).start()


def measure() -> None:
    """Publish a hundred numbers a second."""
    values = dict.fromkeys(("load", "memory", "requests", "temperature"), 50.0)
    while True:
        for name in values:
            values[name] += random.uniform(-1, 1)
            numbers.publish({"name": name, "value": values[name]}, key=name)
        time.sleep(0.04)


if __name__ == "__main__":
    app.run()
