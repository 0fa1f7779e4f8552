"""Response: the base of responses, which is Starlette's where it is installed.

FastAPI and Starlette recognize a response by this class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

__all__ = ["Response"]

if TYPE_CHECKING:
    from starlette.responses import Response
else:
    try:
        from starlette.responses import Response
    except ImportError:

        class Response:
            """A response with headers, without Starlette."""

            def init_headers(self, headers: Mapping[str, str]) -> None:
                """Set the headers."""
                self.raw_headers = [
                    (name.encode("latin-1"), value.encode("latin-1"))
                    for name, value in headers.items()
                ]
