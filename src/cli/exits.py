"""The exit codes of the commands."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """An exit code; argparse uses 2 for invalid arguments."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    INTERRUPTED = 130  # the exit code with which a shell reports SIGINT


HELP = {
    Exit.OK: "the end was regular",
    Exit.FAILED: "the connection was lost, or closed with an error",
    Exit.USAGE: "invalid arguments",
    Exit.UNREACHABLE: "no connection: name, address, time limit or certificate",
    Exit.REFUSED: "the server refused the request",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}


def exit_codes() -> str:
    """Return the table of exit codes for the help of a command."""
    return "\n".join(["exit codes:", *(f"  {code:<5} {text}" for code, text in HELP.items())])
