"""The turns of handlers, which have Django's state as in a view, and leave no connection open.

Django has one connection to a database for each thread, and closes it after the request. A handler
lasts longer than a request, and its turns run in several threads. So the connections of a thread
are closed at the end of each turn: at ``yield``, in ``receive`` and in ``get``. An idle client
holds no connection to a database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from django.core.handlers.wsgi import WSGIRequest
from django.core.signals import got_request_exception
from django.db import connections, reset_queries
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError
from django.urls import get_script_prefix, set_script_prefix
from django.utils import timezone, translation

from ..wsgi.surroundings import Connection, is_end
from .caches import free_caches


class Turns:
    """The turns of one handler, with Django's state as in its view.

    Args:
        request: the request of the handler.
    """

    def __init__(self, request: WSGIRequest) -> None:
        self._request = request
        self._prefix = get_script_prefix()
        self._language = translation.get_language()
        self._time_zone = timezone.get_current_timezone()
        self._paused = False

    @contextmanager
    def entered(self, connection: Connection) -> Iterator[None]:
        """The handler's thread: begin the first turn and end the last one, as a context manager.

        An exception is sent to error trackers, unless it reports the end of the connection.
        """
        self._begin()
        try:
            yield
        except Exception as error:
            if not is_end(error, connection):
                got_request_exception.send_robust(sender=None, request=self._request)
            raise
        finally:
            close_connections()

    def pause(self) -> None:
        """The handler's thread: end a turn.

        Raises:
            TransactionManagementError: a transaction is open. Other turns in this thread would
                become part of the transaction.
        """
        if any(each.in_atomic_block for each in connections.all(initialized_only=True)):
            raise TransactionManagementError(
                "rolling back, because the handler waits within transaction.atomic(): leave the "
                "block before yield, receive() or get()"
            )
        close_connections()
        self._paused = True

    def resume(self) -> None:
        """The handler's thread: begin the next turn."""
        if self._paused:
            self._paused = False
            self._begin()

    def _begin(self) -> None:
        """Prepare the thread for a turn, as Django does for a request.

        The prefix of URLs, the language and the time zone are set for each turn, because Django
        keeps them for each thread.
        """
        reset_queries()
        free_caches.borrow()
        set_script_prefix(self._prefix)
        if self._language is None:
            translation.deactivate_all()
        else:
            translation.activate(self._language)
        timezone.activate(self._time_zone)


def close_connections() -> None:
    """The turn's thread: close the connections of this thread, also with ``CONN_MAX_AGE``."""
    with ExitStack() as stack:
        stack.callback(free_caches.take_back)
        for connection in connections.all(initialized_only=True):
            stack.callback(_close, connection)


def _close(connection: BaseDatabaseWrapper) -> None:
    connection.close()
    if connection.in_atomic_block:
        # An open transaction must end, so that the next turn does not become part of it.
        del connections[connection.alias]
