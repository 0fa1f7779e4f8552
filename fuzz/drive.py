"""One target under libFuzzer, in this process: ``python -m fuzz.drive TARGET [its arguments]``."""

from __future__ import annotations

import sys
from collections.abc import Callable

import atheris

from tests.support.tools import load_codec

from . import connection, eventstream, handshake, kernels, parts, requests, responses
from .inputs import Codecs

TARGETS: dict[str, Callable[[Codecs, bytes], None]] = {
    "kernels": kernels.check,
    "stream": connection.check_stream,
    "frames": connection.check_frames,
    "talk": connection.check_talk,
    "parts": parts.check_stream,
    "sent-parts": parts.check_talk,
    "request": requests.check,
    "response": responses.check,
    "handshake": handshake.check,
    "eventstream": eventstream.check,
}


def main() -> None:
    """Fuzz until the time is over or the target fails; never return."""
    program, target, *arguments = sys.argv
    with atheris.instrument_imports(include=["wsframe"]):
        codecs = Codecs(load_codec(pure=False), load_codec(pure=True))
    if not codecs.compiled.ACCELERATED:
        sys.exit("the compiled kernels are not available")
    check = TARGETS[target]
    atheris.Setup([program, *arguments], lambda data: check(codecs, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
