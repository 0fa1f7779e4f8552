"""The code of docs/htmx.md; and htmx and Turbo at the end of a connection, in Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from datastar_py import ServerSentEventGenerator as Datastar
from datastar_py.consts import ElementPatchMode
from flask import Flask, request
from playwright.sync_api import Page, expect

from tests.support.browser import Pages, browser, faults, pages
from tests.support.clients import Client, get
from tests.support.npm import serve_cdn
from tests.support.pages import DOCS, blocks
from tests.support.waiting import wait_until
from tests.wsgi import running
from wsframe import ServerSentEvent
from wsframe.flask import Live, WebSocket

__all__ = ["browser", "faults", "pages"]

PAGE = (DOCS / "htmx.md",)
PYTHON = blocks("python", pages=PAGE)
HTML = [block.code for block in blocks("html", pages=PAGE)]


@pytest.fixture(autouse=True)
def leak_check() -> None:
    """Check nothing: the browser owns threads and files."""


class Site:
    """The application of a block, with a page.

    Attributes:
        names: the names that the block defines.
        asked: the path and the last event id of each request, except those of the page.
        port: the port of its server.
    """

    def __init__(self, names: dict[str, Any], html: str, stack: ExitStack) -> None:
        self.names = names
        self.asked: list[tuple[str, str]] = []
        app: Flask = names["app"]
        app.add_url_rule("/", "page", lambda: f"<!doctype html><link rel=icon href=data:,>{html}")
        app.before_request(self._note)
        live: Live = app.extensions["wsframe"]
        live.configure(retry=0.01)
        stack.callback(live.stop, 0)
        self.port = stack.enter_context(running.werkzeug_server(app))

    def asked_for(self, path: str) -> list[str]:
        """Return the last event ids of the requests for a path."""
        return [last_id for asked, last_id in tuple(self.asked) if asked == path]

    def _note(self) -> None:
        if request.path != "/":
            self.asked.append((request.path, request.headers.get("Last-Event-ID", "")))


Serve = Callable[..., Site]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a block of Python with a page."""
    with ExitStack() as stack:

        def start(block: int, html: str = "") -> Site:
            names: dict[str, Any] = {"__name__": "page"}
            PYTHON[block].run(names)
            return Site(names, html, stack)

        yield start


@pytest.fixture
def visit(pages: Pages) -> Callable[[Site], Page]:
    """Open the page of a site."""

    def visit(site: Site) -> Page:
        page = pages.open("about:blank")
        serve_cdn(page.context)
        page.goto(f"http://127.0.0.1:{site.port}/")
        return page

    return visit


Visit = Callable[[Site], Page]

HIDE = """hidden => {
    Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""
# An element that reconnects forever, at once.
ETERNAL = '<p hx-{}:connect="{}" hx-config="{}.reconnectDelay:10" hx-target="this"></p>'


@pytest.mark.slow
@pytest.mark.unmeasured
def test_htmx_receives_missed_events_and_stops_at_the_end(
    serve: Serve, visit: Visit, faults: list[str]
) -> None:
    site = serve(0, HTML[0] + ETERNAL.format("sse", "/eternal", "sse"))
    goals = site.names["goals"]
    site.names["app"].add_url_rule("/eternal", "eternal", site.names["follow"])
    page = visit(site)
    wait_until(lambda: goals.stats().subscribers == 2, "both elements are subscribed")
    site.names["report"]("Nantes & Lyon")
    expect(page.locator("ol li")).to_have_text(["Nantes & Lyon"])
    page.evaluate(HIDE, True)
    wait_until(lambda: goals.stats().subscribers == 0, "a hidden page has no stream")
    site.names["report"]("Lille")
    page.evaluate(HIDE, False)
    expect(page.locator("ol li")).to_have_text(["Nantes & Lyon", "Lille"])
    wait_until(lambda: goals.stats().subscribers == 2, "both elements are subscribed again")
    goals.close()
    wait_until(lambda: site.asked_for("/eternal").count(":end") >= 3, "a 204 stops nothing")
    first, resumed = site.asked_for("/goals")
    assert (first, bool(resumed)) == ("", True)
    assert faults == []


@pytest.mark.slow
@pytest.mark.unmeasured
def test_htmx_2_stops_after_an_event_with_data(serve: Serve, visit: Visit) -> None:
    site = serve(0, HTML[1] + '<p hx-ext="sse" sse-connect="/eternal" sse-swap="message"></p>')
    goals = site.names["goals"]
    site.names["app"].add_url_rule("/eternal", "eternal", site.names["follow"])
    page = visit(site)
    wait_until(lambda: goals.stats().subscribers == 2, "both elements are subscribed")
    site.names["report"]("Nantes")
    expect(page.locator("ol li")).to_have_text(["Nantes"])
    site.names["end_match"]()
    wait_until(lambda: site.asked_for("/eternal")[:3] == ["", ":end", ""], "it begins again")
    assert site.asked_for("/goals") == [""]


@pytest.mark.slow
@pytest.mark.unmeasured
def test_turbo_stops_after_the_end(serve: Serve, visit: Visit, faults: list[str]) -> None:
    site = serve(1, HTML[2])
    notices = site.names["notices"]
    page = visit(site)
    wait_until(lambda: notices.stats().subscribers == 1, "the page is subscribed")
    site.names["notify"]("a < b")
    expect(page.locator("li")).to_have_text(["a < b"])
    notices.close()
    source = "document.querySelector('turbo-stream-source').streamSource"
    page.wait_for_function(f"{source}.readyState === EventSource.CLOSED")
    assert site.asked_for("/notices") == ["", ":end"]
    assert faults == []


def closes(ws: WebSocket, code: int) -> None:
    ws.send(f"<i>{code}</i>")
    ws.close(code)


@pytest.mark.slow
@pytest.mark.unmeasured
def test_htmx_opens_a_websocket_again_unless_it_was_closed_with_1000(
    serve: Serve, visit: Visit, faults: list[str]
) -> None:
    element = ETERNAL.format("ws", "/{0}", "ws")
    site = serve(
        0,
        HTML[0].replace("hx-sse.min", "hx-ws.min").partition("<ol")[0]
        + element.format(1000)
        + element.format(1001),
    )
    live = site.names["live"]
    app: Flask = site.names["app"]
    app.add_url_rule(
        "/<int:code>", "end", lambda code: live.websocket(closes, code=code), websocket=True
    )
    page = visit(site)
    wait_until(lambda: len(site.asked_for("/1001")) >= 3, "the WebSocket is opened again")
    expect(page.locator("i").first).to_have_text("1000")
    assert site.asked_for("/1000") == [""]
    assert faults == []


def test_the_events_of_datastar_have_the_bytes_of_datastar_py(serve: Serve) -> None:
    event = serve(2).names["event"]
    append = ElementPatchMode.APPEND
    elements = "datastar-patch-elements"
    expected = {
        Datastar.patch_elements("<p>one</p>"): ServerSentEvent("elements <p>one</p>", elements),
        Datastar.patch_elements("<ul>\n  <li>é\n</ul>", "#list", append): ServerSentEvent(
            "mode append\nselector #list\nelements <ul>\nelements   <li>é\nelements </ul>", elements
        ),
        Datastar.patch_elements("<p>", use_view_transition=True, event_id="7"): ServerSentEvent(
            "useViewTransition true\nelements <p>", elements, id="7"
        ),
        Datastar.remove_elements("#old"): ServerSentEvent("mode remove\nselector #old", elements),
        Datastar.patch_signals({"score": 1, "name": "é"}): ServerSentEvent(
            'signals {"score":1,"name":"\\u00e9"}', "datastar-patch-signals"
        ),
        Datastar.patch_signals("{a: 1,\nb: 2}", only_if_missing=True): ServerSentEvent(
            "onlyIfMissing true\nsignals {a: 1,\nsignals b: 2}", "datastar-patch-signals"
        ),
        Datastar.execute_script("f()", event_id="8"): ServerSentEvent(
            'mode append\nselector body\nelements <script data-effect="el.remove()">f()</script>',
            elements,
            id="8",
        ),
    }
    for block, encoded in expected.items():
        assert encoded.encode() == block.encode()
        assert event(block).encode() == block.encode()
    # Datastar's default of a second is not encoded.
    block = Datastar.patch_signals({}, retry_duration=2000)
    assert ServerSentEvent("signals {}", "datastar-patch-signals", retry=2000).encode() == (
        block.encode()
    )


def test_a_topic_patches_elements_and_signals_of_datastar(serve: Serve) -> None:
    site = serve(2)
    client = Client(site.port)
    client.send(get("/match", ("Content-Length", "2"), method="POST") + b"{}")
    wait_until(lambda: site.names["match"].stats().subscribers, "the client is subscribed")
    site.names["goal"](1)
    site.names["match"].close()
    body = re.sub(rb"id: (?!:end).*\n", b"", client.answer().body)
    patches = Datastar.patch_elements('<b id="score">1</b>') + Datastar.patch_signals({"score": 1})
    assert body.endswith(f"{patches}event: end\nid: :end\n\n".encode())


def test_all_blocks_are_tested() -> None:
    assert (len(PYTHON), len(HTML)) == (3, 3)
