"""Reports of a service's state: printed lines, and notifications of the service manager."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf

from .reports.loggers import background
from .reports.output import announce
from .timing import Timing


class ServiceManager:
    """Notifications of the service manager, such as systemd, about the process (sd_notify(3)).

    Any thread may call the methods. Without a service manager, the methods do nothing.

    Args:
        environment: the variables NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.

    Attributes:
        interval: seconds after which :meth:`alive` is due again; inf if the manager does not
            supervise the process. The manager ends a process that is silent for twice this time.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID")
        supervised = usec.isdecimal() and int(usec) and pid in (None, str(os.getpid()))
        self.interval: float = int(usec) / 2e6 if supervised and address else inf

    def ready(self) -> None:
        """Any thread: report that the process serves, for the first time or after a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Any thread: report that the process reloads its configuration."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Any thread: report that the process begins to stop."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Any thread: report that the process makes progress."""
        self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._address or not hasattr(socket, "AF_UNIX"):
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(Timing.notify_timeout)
            sock.sendto(state.encode(), self._address)


class Status:
    """The reports of a service's states on standard output and to the service manager.

    Args:
        manager: the service manager.
    """

    def __init__(self, manager: ServiceManager) -> None:
        self.manager = manager

    def serving(self, line: str) -> None:
        """Any thread: report that the service has started."""
        announce(line)
        self.manager.ready()

    def reloading(self) -> None:
        """Any thread: report that a SIGHUP has arrived."""
        self.manager.reloading()
        announce("Reloading.")

    def reloaded(self, problems: Sequence[str], *, partly: bool = False) -> None:
        """Any thread: report that the new state is in use, or the reasons for keeping the old one.

        Args:
            problems: the parts of the old state that remain in use, and why; empty if none remains.
            partly: True if some of the new state is in use in spite of the problems.
        """
        background.flush(Timing.log_flush_timeout)  # the log contains the problems in detail
        if problems:
            outcome = "Reloaded only in part" if partly else "Not reloaded"
            announce(f"{outcome}: {'; '.join(problems)}.")
        else:
            announce("Reloaded.")
        self.manager.ready()

    def stopping(self) -> None:
        """Any thread: report that a stop signal has arrived."""
        announce("Shutting down; press Ctrl-C again to force.")
        self.manager.stopping()
