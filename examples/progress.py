"""The progress of a long job: ``python examples/progress.py``, then http://localhost:9292.

Close the tab while the job runs, and open its address again: the page shows the current progress.
"""

import re
import threading
import time
from pathlib import Path

from wsframe import HandshakeError
from wsframe.server import App, EventStream, Request, Topic

app = App()
app.page("/", Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))

MOST_JOBS = 20
MOST_NAMES = 1000
jobs: dict[str, threading.Thread] = {}  # running and finished ones; the newest is the last
lock = threading.Lock()


def may_start(request: Request) -> bool:
    """Admit a job if its name is valid and not too many jobs run."""
    name = request.parameters["job"]
    running = sum(job.is_alive() for job in tuple(jobs.values()))
    if name not in jobs and running >= MOST_JOBS:
        raise HandshakeError(503, "too many running jobs", [("Retry-After", "10")])
    return re.fullmatch("[a-z0-9-]{1,40}", name) is not None


@app.sse("/jobs/{job}", authorize=may_start)
def watch(stream: EventStream, job: str) -> None:
    """Send the job's progress so far, and all further progress; start the job if it is new."""
    topic = app.topic(f"job {job}", max_age=3600.0)
    stream.subscribe(topic, after="")
    with lock:
        if job in jobs:
            return
        jobs[job] = threading.Thread(target=work, args=(topic,), daemon=True)
        jobs[job].start()
        if len(jobs) > MOST_NAMES:
            del jobs[next(iter(jobs))]


def work(topic: Topic) -> None:
    """Do the job, and publish its progress."""
    for done in range(101):
        topic.publish({"done": done})
        time.sleep(0.1)
    topic.close()  # ends the event streams; browsers do not reconnect


if __name__ == "__main__":
    app.run()
