"""Every public class of every package has an example in its docstring, which is correct."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import uvicorn
from fastapi import FastAPI
from flask import Flask

import wsframe
from tests.support.examples import faults
from tests.support.handlers import plain_echo, websocket_app
from tests.support.serving import serve
from wsframe.client import connect, events
from wsframe.server import App

# Tests of their own run the examples of these packages, in a project and with fixtures.
ELSEWHERE = {"django", "testing"}
PACKAGES = [
    wsframe,
    *(
        import_module(f"wsframe.{found.name}")
        for found in iter_modules(wsframe.__path__)
        if found.ispkg and found.name not in ELSEWHERE
    ),
]


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
        found = [
            fault
            for module in PACKAGES
            if hasattr(module, "__all__")
            for fault in faults(module, **names)
        ]
    assert "\n".join(found) == ""
