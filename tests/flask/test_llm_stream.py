"""The example examples/llm_stream.py under gunicorn, with Python's client and in Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Pages, browser, faults, pages
from tests.support.npm import serve_cdn
from tests.support.processes import ServerProcess
from tests.wsgi.running import GUNICORN
from wsframe import HandshakeError
from wsframe.client import EventSource, events

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

__all__ = ["browser", "faults", "pages"]

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = ("-m", "gunicorn", "--bind", "127.0.0.1:0", "--worker-class", "gthread", "--threads", "4")
STOPPED = re.compile(r"answer (\S+) was stopped after (\d+) tokens")
QUESTION = "Is 1 < 2 & <b>bold</b>?"
FORM = ("Content-Type", "application/x-www-form-urlencoded")


@pytest.fixture(autouse=True)
def leak_check() -> None:
    """Check nothing: the servers are other processes, and the browser owns threads and files."""


Serve = Callable[..., ServerProcess]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start the example with these settings."""
    with ExitStack() as stack:

        def start(**settings: float) -> ServerProcess:
            for name, value in settings.items():
                monkeypatch.setenv(f"FLASK_{name.upper()}", str(value))
            command = (*COMMAND, "--chdir", str(EXAMPLES), "llm_stream:app")
            return stack.enter_context(ServerProcess(*command, until=GUNICORN))

        yield start


def ask(
    server: ServerProcess, name: str, question: str = QUESTION, *, last_event_id: str = ""
) -> EventSource:
    """Post a question."""
    return events(
        f"{server.url}/answers",
        method="POST",
        headers=[FORM],
        body=urlencode({"answer": name, "question": question}).encode(),
        last_event_id=last_event_id,
    )


def answer_to(question: str) -> str:
    """Return the complete answer, in HTML."""
    flock = "".join(f"{number} sheep,\n" for number in range(1, 101))
    text = f'"{question}" is a good question. {flock}and so on.'
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace('"', "&#34;")


def rest_of(stream: EventSource) -> str:
    """Read to the end of the answer; return the text."""
    *tokens, last = stream
    assert last.event == "done"
    return "".join(token.data for token in tokens)


def refusal(server: ServerProcess, name: str, last_event_id: str = "") -> int | None:
    """Return the status of the response to a question that is refused."""
    with (
        pytest.raises(HandshakeError) as caught,
        ask(server, name, last_event_id=last_event_id) as stream,
    ):
        next(stream)
    return caught.value.status


def test_an_answer_is_resumed_and_not_written_twice(serve: Serve) -> None:
    server, name = serve(pause=0.002, patience=60), str(uuid4())
    with ask(server, name) as first:
        beginning = [next(first).data for _ in range(5)]
        with ask(server, name, last_event_id=first.last_event_id) as second:
            beginning.append(next(second).data)
            first.close()
            assert "".join(beginning) + rest_of(second) == answer_to(QUESTION)
            last_id = second.last_event_id
    with ask(server, name) as repeated:
        assert rest_of(repeated) == answer_to(QUESTION)
    assert list(ask(server, name, last_event_id=last_id)) == []
    assert refusal(server, "no UUID") == 400


def test_the_model_stops_without_readers(serve: Serve) -> None:
    server = serve(pause=0.01, patience=0.1)
    names = [str(uuid4()) for _ in range(8)]
    with ExitStack() as stack:
        streams = [stack.enter_context(ask(server, name, "Why? " * 200)) for name in names]
        for stream in streams:
            assert next(stream).data == "&#34;Why? "
        assert refusal(server, str(uuid4())) == 503
    stopped = {server.expect(STOPPED)[1] for _ in names}
    assert stopped == set(names)
    assert refusal(server, names[0], streams[0].last_event_id) == 410


# Replaces fetch, so that the first response ends within an event.
INTERRUPT = """
const original = window.fetch;
let rest = 300;
window.fetch = async (...request) => {
    const response = await original(...request);
    if (!rest) return response;
    const reader = response.body.getReader();
    const body = new ReadableStream({async pull(controller) {
        const bytes = (await reader.read()).value.subarray(0, rest);
        controller.enqueue(bytes);
        rest -= bytes.length;
        if (!rest) {
            controller.close();
            reader.cancel();
        }
    }});
    return new Response(body, response);
};
"""


def expect_answer(page: Page) -> None:
    page.fill("[name=question]", QUESTION)
    page.get_by_text("Ask", exact=True).click()
    expect(page.locator("#state")).to_have_text("Done.")
    assert page.inner_html("#answer").replace('"', "&#34;") == answer_to(QUESTION)


@pytest.mark.parametrize("path", ["/", "/htmx"])
def test_a_page_shows_an_answer_after_an_interruption(
    serve: Serve, pages: Pages, faults: list[str], tmp_path: Path, path: str
) -> None:
    server = serve(pause=0.002, patience=60)
    page = pages.open("about:blank")
    serve_cdn(page.context)
    page.add_init_script(INTERRUPT)
    methods: list[str] = []
    page.on("request", lambda request: methods.append(request.method))
    page.goto(server.url + path)
    expect_answer(page)
    assert methods.count("POST") == 2
    expect_answer(page)  # of another question
    assert methods.count("POST") == 3
    page.screenshot(path=tmp_path / "answer.png")
    assert faults == []
