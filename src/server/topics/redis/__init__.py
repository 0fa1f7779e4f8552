"""Topics whose logs are Redis streams: ``streams.py`` implements the interface to a broker."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("redis") is None:
    raise ModuleNotFoundError(
        'topics over Redis require redis-py: pip install "wsframe[redis]"', name="redis"
    )
