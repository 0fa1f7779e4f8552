"""A stand-in for Flask-Login, with the names that the documentation imports.

The user's id is in the session of Flask.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import abort, session

USER = "_user_id"  # the key in the session, as in Flask-Login


class CurrentUser:
    """The user of the request."""

    @staticmethod
    def get_id() -> str | None:
        """Return the user's id; None for a visitor who has not logged in."""
        return session.get(USER)


current_user = CurrentUser()


def login_required(view: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse requests without a user with 401; a decorator of views."""

    @wraps(view)
    def checked(**arguments: Any) -> Any:
        if current_user.get_id() is None:
            abort(401)
        return view(**arguments)

    return checked


def logout_user() -> None:
    """Remove the user from the session."""
    del session[USER]
