"""The contexts of Flask in which the handler of a connection runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import current_app, g, got_request_exception, request
from flask.ctx import RequestContext
from flask.globals import app_ctx, request_ctx
from flask.sessions import SessionMixin
from werkzeug.datastructures import ImmutableDict

from ..wsgi.surroundings import Connection, is_end


class ReadOnlySession(ImmutableDict[str, Any], SessionMixin):  # type: ignore[misc]
    """A read-only copy of a session. A change would be lost, because the cookie has been sent."""


class Contexts:
    """The contexts for the handler of one connection, created in the view.

    The contexts have the request and the ``g`` of the view. The application context is popped while
    the handler waits, so that functions of ``teardown_appcontext`` are called. The request context
    remains until the handler ends.

    Args:
        keep: True to keep the application context while the handler waits. Then the handler uses
            the view's session; otherwise it uses a read-only copy.
    """

    def __init__(self, *, keep: bool) -> None:
        self._app = current_app._get_current_object()  # type: ignore[attr-defined]
        session = request_ctx.session
        # New contexts, because a debugger or a test may still use the contexts of the view.
        self._app_context = self._app.app_context()
        self._app_context.g = g._get_current_object()
        self._request_context = RequestContext(
            self._app,
            request.environ,
            request._get_current_object(),  # type: ignore[attr-defined]
            session if keep else ReadOnlySession(session),
        )
        self._keep = keep
        self._paused = False

    @contextmanager
    def entered(self, connection: Connection) -> Iterator[None]:
        """The handler's thread: push the contexts, and pop them at the end of the handler.

        An exception is sent as ``got_request_exception``, unless it is the end of this connection.
        """
        failure: BaseException | None = None
        self._app_context.push()
        self._request_context.push()
        try:
            yield
        except BaseException as error:
            if not is_end(error, connection):
                failure = error
            if issubclass(type(failure), Exception):
                self.resume()
                wrapper = self._app.ensure_sync
                got_request_exception.send(self._app, _async_wrapper=wrapper, exception=failure)
            raise
        finally:
            self.resume()
            try:
                self._request_context.pop(failure)
            finally:
                self._app_context.pop(failure)

    def pause(self) -> None:
        """The handler's thread: pop the application context, unless the handler keeps it."""
        if not self._keep and app_ctx == self._app_context:
            self._paused = True
            try:
                self._app_context.pop(None)
            except BaseException:
                self.resume()  # the handler must end with its application context
                raise

    def resume(self) -> None:
        """The handler's thread: push the application context again."""
        if self._paused:
            self._paused = False
            self._app_context.push()
