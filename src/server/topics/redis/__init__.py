"""Topics whose logs are Redis streams: ``streams.py`` implements the interface to a broker."""
