"""A chart of the server benchmark: each server beside the limit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from .report import Rounds, ratio
from .scenarios import ECHO_SERVERS, ECHOES, SCENARIOS
from .serving import GENERATOR, LIMIT, PYTHON_LIMIT, THREAD

LABELS = {
    PYTHON_LIMIT: "a bare loop in Python",
    GENERATOR: "wsframe, generators",
    THREAD: "wsframe, plain functions",
    "picows_uvloop": "picows on uvloop",
    "aiohttp_uvloop": "aiohttp on uvloop",
    "uvicorn_uvloop": "uvicorn on uvloop",
    "websockets_asyncio": "websockets on asyncio",
    "websockets_sync": "websockets, threads",
}
OURS, PEERS, INK = "#1f6feb", "#b6bcc6", "#24292f"
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1}


def draw(results: Mapping[str, Rounds], path: Path) -> None:
    """Draw a panel for each echo scenario, with a bar for each server."""
    keys = [key for key in ECHOES if key in results]
    names = [
        name for name in ECHO_SERVERS if name != LIMIT and any(name in results[key] for key in keys)
    ]
    figure = Figure(figsize=(1.8 + 2.3 * len(keys), 1.9 + 0.34 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for key, panel in zip(keys, panels, strict=True):
        shares = [ratio(results[key], "per_cpu", name, LIMIT) for name in names]
        colours = [OURS if name in (GENERATOR, THREAD) else PEERS for name in names]
        panel.barh(range(len(names)), [share or 0.0 for share in shares], 0.72, color=colours)
        for at, share in enumerate(shares):
            text = _percent(share)
            panel.text(
                (share or 0.0) + 0.03, at, text, va="center", fontsize=8, color=INK, bbox=PAPER
            )
        panel.axvline(1.0, color=INK, linewidth=1, linestyle=(0, (3, 2)))
        panel.set_title(SCENARIOS[key].title.replace(", ", "\n"), fontsize=9, color=INK)
        panel.set_xlim(0, max(1.3, *(share + 0.3 for share in shares if share)))
        panel.set_xticks([0, 0.5, 1.0], ["0", "50 %", "C epoll loop"], fontsize=8)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(names)), [LABELS[name] for name in names], fontsize=9)
    panels[0].invert_yaxis()
    figure.suptitle(
        "Echoes per second of the server's processor time,\nas a share of what a loop in C reaches",
        fontsize=11,
        color=INK,
    )
    figure.savefig(path, dpi=150)


def _percent(share: float | None) -> str:
    if share is None:
        return "not measured"
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"
