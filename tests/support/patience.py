"""More time for threads that the tests wait for, because all tests compete for the processors."""

from __future__ import annotations

# The longest waits of the server for its own threads and processes, in seconds. A wait ends as soon
# as its event happens. A test in which it never happens passes a value of its own.
PATIENT = {
    "handler_grace": 20.0,
    "log_flush_timeout": 20.0,
    "stats_timeout": 20.0,
}


def be_patient() -> None:
    """Replace these defaults of :class:`wsframe.server.timing.Timing` in this process."""
    from wsframe.server.timing import Timing

    defaults = Timing.__init__.__kwdefaults__
    assert defaults is not None
    for name, seconds in PATIENT.items():
        assert defaults[name] == getattr(Timing, name)
        defaults[name] = seconds
        setattr(Timing, name, seconds)
