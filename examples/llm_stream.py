"""A language model's answer as an event stream, for fetch() and for htmx.

    gunicorn --worker-class gthread --threads 4 --chdir examples llm_stream:app

A POST asks a question, and its response is the event stream of the answer, which holds none of the
four threads. A client that loses the connection sends the same POST again, with Last-Event-ID, and
receives the rest. The model stops when no client has read its answer for a few seconds. The pages
are http://localhost:8000 and http://localhost:8000/htmx.
"""

import re
import threading
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

from flask import Flask, abort, request
from markupsafe import escape

from wsframe import ServerSentEvent
from wsframe.flask import EventStream, Live, Topic

HERE = Path(__file__).parent
MOST_MODELS = 8
MOST_ANSWERS = 1000

app = Flask(__name__)
app.config.from_mapping(PAUSE=0.05, PATIENCE=5.0)  # seconds
app.config.from_prefixed_env()  # such as FLASK_PATIENCE
app.logger.setLevel("INFO")
live = Live(app)
answers: dict[UUID, threading.Thread] = {}  # current and complete ones; the newest is the last
lock = threading.Lock()


@app.get("/")
def page() -> str:
    """The page that uses fetch()."""
    return (HERE / "llm_stream.html").read_text("utf-8")


@app.get("/htmx")
def htmx_page() -> str:
    """The page that uses htmx."""
    return (HERE / "llm_htmx.html").read_text("utf-8")


@app.post("/answers")
def answer() -> Any:
    """Answer a question. The client names the answer, so that a second POST starts no model."""
    name = request.form.get("answer", type=UUID) or abort(400)
    question = request.form["question"][:1000]
    if is_kept(name):
        return live.events(follow, name=name)
    if "Last-Event-ID" in request.headers:
        return "The answer was stopped. Ask again.", 410
    if is_busy():
        return "Too many questions. Ask again in a minute.", 503, {"Retry-After": "60"}
    return live.events(begin, name=name, question=question)


def is_busy() -> bool:
    """Return True if no further model may run."""
    return sum(writer.is_alive() for writer in list(answers.values())) >= MOST_MODELS


def is_kept(name: UUID) -> bool:
    """Return True if the answer can be read; forget it if its tokens have expired."""
    with lock:
        writer = answers.get(name)
        if writer is not None and not writer.is_alive() and not topic_of(name).stats().history:
            del answers[name]
        return name in answers


def topic_of(name: UUID) -> Topic:
    """Return the topic with the tokens of an answer."""
    return live.topic(f"answer {name}", history=10_000, max_age=600.0)


def follow(stream: EventStream, name: UUID) -> Topic:
    """Send the answer from its beginning, or from Last-Event-ID. No thread waits for the rest."""
    topic = topic_of(name)
    stream.subscribe(topic, after="")
    return topic


def begin(stream: EventStream, name: UUID, question: str) -> None:
    """Start the model, now that a client is connected."""
    with lock:
        if name not in answers and is_busy():  # other models have begun since the view
            stream.send(ServerSentEvent("", event="stopped"))
            stream.close(final=True)
            return
        topic = follow(stream, name)
        if name not in answers:
            answers[name] = threading.Thread(
                target=write, args=(topic, name, question), daemon=True
            )
            answers[name].start()
        if len(answers) > MOST_ANSWERS:
            del answers[next(iter(answers))]


def write(topic: Topic, name: UUID, question: str) -> None:
    """Publish the answer, as long as clients read it."""
    read, count = time.monotonic(), 0
    end = "stopped"  # also if the model fails
    try:
        with closing(model(question)) as tokens:
            for token in tokens:
                now = time.monotonic()
                if topic.stats().subscribers:
                    read = now
                elif now - read > app.config["PATIENCE"]:
                    break
                topic.publish(escape(token))
                count += 1
            else:
                end = "done"
    finally:
        if end == "stopped":
            answers.pop(name, None)
            app.logger.info("answer %s was stopped after %d tokens", name, count)
        topic.publish("", event=end)
        topic.close()


def model(question: str) -> Generator[str, None, None]:
    """Return the tokens of an answer, like the client of a model. Closing it stops the model."""
    flock = "".join(f"{number} sheep,\n" for number in range(1, 101))
    for token in re.findall(r"\S+\s*", f'"{question}" is a good question. {flock}and so on.'):
        time.sleep(app.config["PAUSE"])
        yield token
