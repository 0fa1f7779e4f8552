"""Every public class has an example in its docstring, which is correct; Django has its own test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from flask import Flask

import wsframe
import wsframe.asgi
import wsframe.client
import wsframe.flask
import wsframe.server
import wsframe.uvicorn
import wsframe.wsgi
from tests.support.examples import faults
from tests.support.handlers import plain_echo, websocket_app
from tests.support.serving import serve
from wsframe.client import connect, events
from wsframe.server import App

PACKAGES = (
    wsframe,
    wsframe.client,
    wsframe.server,
    wsframe.wsgi,
    wsframe.flask,
    wsframe.asgi,
    wsframe.uvicorn,
)


def make_app() -> App:
    """Return the app that the examples of the client connect to."""
    app = websocket_app(plain_echo)

    @app.sse("/news")
    def news(stream: Any) -> Iterator[str]:
        yield "hello"

    return app


def test_every_public_class_has_a_correct_example() -> None:
    with serve(make_app()) as server:
        names = {
            "Flask": Flask,
            "FastAPI": FastAPI,
            "address": f"127.0.0.1:{server.port}",
            "connect": connect,
            "events": events,
            "uvicorn": uvicorn,
        }
        found = [fault for module in PACKAGES for fault in faults(module, **names)]
    assert "\n".join(found) == ""
