"""The response of a Flask view that opens a connection: Flask's hooks run before it is sent.

Flask calls a WSGI application that a view returns at once: before the ``after_request`` functions,
and before the session cookie is set. So the view returns a response that calls it afterwards.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .application import Application
from .replies import Answer, Reply

if TYPE_CHECKING:
    from flask import Response

    from .environ import Environ, StartResponse


def in_view() -> bool:
    """The request's thread: return True if a Flask view is running."""
    flask = sys.modules.get("flask")
    return flask is not None and bool(flask.has_request_context())


def response_to(application: Application) -> Response:
    """The request's thread, in a Flask view: return the response that calls a WSGI application."""
    from flask import current_app, request

    reply = application.open(request.environ, request.stream)
    kind: Any = current_app.response_class
    if isinstance(reply, Answer):
        response: Response = kind(reply.body, reply.status, reply.headers)
        return response
    return _live_response(kind)(reply)


@functools.cache
def _live_response(kind: Any) -> Callable[[Reply], Response]:
    """Return a subclass of the Flask application's response class, which Flask requires."""
    from werkzeug.wsgi import ClosingIterator

    class LiveResponse(kind):  # type: ignore[misc]
        """A Flask response that sends a reply, with the headers that hooks have added.

        If a hook has changed the status, the hook has refused the request. Then no connection is
        taken over, and Flask sends an ordinary response.
        """

        def __init__(self, reply: Reply) -> None:
            super().__init__((), reply.status, reply.headers)
            self.call_on_close(reply.close)
            self._reply = reply

        def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            if self.status_code != self._reply.status:
                return super().__call__(environ, start_response)  # type: ignore[no-any-return]
            self._reply.add_headers(self.headers.items())
            return ClosingIterator(self._reply(environ, start_response), self.close)

    return LiveResponse
