"""Topics whose logs are Redis Streams; ``streams.py`` is the way in."""
