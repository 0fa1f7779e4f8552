"""The codec of one build: a server decodes texts of 125 bytes, one a call, and encodes them again.

``bench/paired.py`` runs it with the Python of each build: ``python -m bench.codec_speed SECONDS``.
The output is the number of messages per second of processor time.
"""

from __future__ import annotations

import sys
import time
from itertools import repeat

from wsframe import Connection, Role

MESSAGES = 64
CALLS = 50  # rounds over all messages between two looks at the clock


def measure(seconds: float) -> float:
    """Return the messages per second of processor time.

    Raises:
        ValueError: an echo is wrong.
    """
    texts = [f"{number:125}" for number in range(MESSAGES)]
    client = Connection(Role.CLIENT)
    frames = [client.encode(text) for text in texts]
    server = Connection(Role.SERVER)
    receive, encode = server.receive, server.encode
    for frame, text in zip(frames, texts, strict=True):
        echoes = [encode(message) for message in receive(frame) if isinstance(message, str)]
        if [client.receive(echo) for echo in echoes] != [[text]]:
            raise ValueError("the codec returned a wrong echo")
    messages = 0
    begin = now = time.process_time()
    while now < begin + seconds:
        for _ in repeat(None, CALLS):
            for frame in frames:
                encode(receive(frame)[0])  # type: ignore[arg-type]
        messages += CALLS * MESSAGES
        now = time.process_time()
    return messages / (now - begin)


if __name__ == "__main__":
    print(measure(float(sys.argv[1])))
