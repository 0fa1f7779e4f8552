"""The measurements of an attack, and the bounds that it exceeded."""

from __future__ import annotations

from dataclasses import dataclass, field

KIB, MIB = 1 << 10, 1 << 20


@dataclass
class Report:
    """The figures of one attack.

    Attributes:
        timed: True if durations are compared with their bounds; tests measure no speed.
        lines: the figures as text.
        faults: the lines that exceed a bound, and the failed checks.
    """

    timed: bool = True
    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def memory(self, what: str, size: float, at_most: float | None = None) -> None:
        """Note a size in bytes; more than ``at_most`` is a fault."""
        exceeded = at_most is not None and size > at_most
        self._note(what, _size(size), None if at_most is None else _size(at_most), exceeded)

    def time(self, what: str, seconds: float, at_most: float | None = None) -> None:
        """Note a duration in seconds; more than ``at_most`` is a fault where times count."""
        exceeded = self.timed and at_most is not None and seconds > at_most
        bound = None if at_most is None else f"{at_most * 1000:.0f} ms"
        self._note(what, f"{seconds * 1000:.1f} ms", bound, exceeded)

    def count(self, what: str, number: int) -> None:
        """Note a number."""
        self._note(what, f"{number:,}", None, exceeded=False)

    def check(self, what: str, fulfilled: object) -> None:
        """Note a condition; a false one is a fault."""
        self._note(what, "yes" if fulfilled else "NO", None, exceeded=not fulfilled)

    def _note(self, what: str, value: str, bound: str | None, exceeded: bool) -> None:
        line = f"{what}: {value}" + (f" (at most {bound})" if bound else "")
        self.lines.append(line)
        if exceeded:
            self.faults.append(line)


def _size(size: float) -> str:
    return f"{size / MIB:.1f} MiB" if abs(size) >= MIB else f"{size / KIB:.0f} KiB"
