"""Programs that the command line starts."""

from __future__ import annotations

COMMAND = ("-m", "wsframe.server")
