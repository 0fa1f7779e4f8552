"""The aims of the codec, as ratios to peers and to the limit, and the tables of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from .codecs import AIOHTTP, CONCAT, COPY, HASHLIB, PICOWS, SLICE, WEBSOCKETS, WSFRAME
from .data import SIZES, label
from .traffic import SIZES_OF, ZLIB

UNITS = {
    "deflate": "ns per message",
    "inflate": "ns per message",
    "deflate and inflate": "ns per message",
    "fragments": "ns per frame",
    "pings": "ns per ping",
}
Results = Mapping[str, Mapping[int, Mapping[str, float]]]

BEST_PEER = "the best peer"
KIB = 1024


@dataclass(frozen=True)
class Aim:
    """An upper bound on the ratio of our time to a rival's."""

    group: str
    size: int
    rival: str
    at_most: float


@dataclass(frozen=True)
class Outcome(Aim):
    """An aim and its measured ratio."""

    ours_ns: float
    rival_ns: float
    ratio: float
    met: bool


AIMS = [
    *(Aim("mask", size, WEBSOCKETS, 0.9 if size <= KIB else 1.0) for size in SIZES),
    *(Aim("mask_into", size, AIOHTTP, 0.8) for size in SIZES),
    Aim("take binary", 16, AIOHTTP, 0.15),
    Aim("take binary", 16, WEBSOCKETS, 0.02),
    Aim("take binary", 16, PICOWS, 0.6),
    Aim("take text", 125, AIOHTTP, 0.22),
    Aim("take binary", 64 * KIB, AIOHTTP, 0.4),
    Aim("take binary", 64 * KIB, SLICE, 1.5),
    Aim("take one text", 125, AIOHTTP, 0.4),
    Aim("encode", 125, CONCAT, 1.3),
    Aim("encode", 16 * KIB, COPY, 1.2),
    Aim("encode", 64 * KIB, COPY, 1.2),
    *(Aim("encode_masked", size, BEST_PEER, 0.6) for size in SIZES),
    Aim("accept_key", 0, HASHLIB, 0.4),
    Aim("deflate and inflate", KIB, ZLIB, 1.25),
    *(Aim("fragments", size, WEBSOCKETS, 0.5) for size in SIZES_OF["fragments"]),
    *(Aim("pings", size, WEBSOCKETS, 0.5) for size in SIZES_OF["pings"]),
]


def outcomes(results: Results) -> Iterator[Outcome]:
    """Compare the medians of a run with the aims that it measured."""
    for aim in AIMS:
        times = results.get(aim.group, {}).get(aim.size, {})
        rivals = [
            time
            for name, time in times.items()
            if (
                not name.startswith((WSFRAME, "limit"))
                if aim.rival == BEST_PEER
                else name == aim.rival
            )
        ]
        if rivals and WSFRAME in times:
            ours, rival = times[WSFRAME], min(rivals)
            ratio = ours / rival
            yield Outcome(
                **asdict(aim), ours_ns=ours, rival_ns=rival, ratio=ratio, met=ratio <= aim.at_most
            )


def number(time: float) -> str:
    """Format a time with three significant digits."""
    return f"{time:.1f}" if time < 100 else f"{time:,.0f}"


def aims_table(found: list[Outcome]) -> list[str]:
    """Return the lines of the table of aims."""
    rows: list[tuple[str, ...]] = [("task", "size", "ns", "against", "ns", "ratio", "aim", "")]
    rows += [
        (
            each.group,
            "" if each.group == "accept_key" else label(each.size),
            number(each.ours_ns),
            each.rival,
            number(each.rival_ns),
            f"{each.ratio:.3f}",
            f"<= {each.at_most:g}",
            "met" if each.met else "MISSED",
        )
        for each in found
    ]
    return aligned(rows, left=(0, 3, 7))


def group_table(group: str, by_size: Mapping[int, Mapping[str, float]]) -> list[str]:
    """Return one group's table in nanoseconds: a row per implementation, a column per size."""
    sizes = sorted(by_size)
    names = dict.fromkeys(name for size in sizes for name in by_size[size])
    unit = UNITS.get(group, "ns per frame" if group.startswith("take") else "ns per call")
    heads = [unit] if group == "accept_key" else [label(size) for size in sizes]
    rows: list[tuple[str, ...]] = [(group if group == "accept_key" else f"{group}, {unit}", *heads)]
    for name in names:
        cells = (by_size[size].get(name) for size in sizes)
        rows.append((name, *("" if cell is None else number(cell) for cell in cells)))
    return aligned(rows, left=(0,))


def aligned(rows: list[tuple[str, ...]], left: tuple[int, ...]) -> list[str]:
    """Return the rows with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
