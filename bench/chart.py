"""A chart of the server benchmark: each library beside the limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure

from .report import Rounds, best_of, ratios
from .scenarios import CHARTED, SCENARIOS
from .serving import AIOHTTP, GENERATOR, LIMIT, PICOWS, UVICORN, WEBSOCKETS, variants

# Each row is a library, with the server that is the best of these in the round.
OURS_ROW = "wsframe"
ROWS = {
    OURS_ROW: (GENERATOR,),
    **{library: variants(library) for library in (PICOWS, AIOHTTP, UVICORN, WEBSOCKETS)},
}
OURS, PEERS, INK = "#1f6feb", "#b6bcc6", "#24292f"
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1}


def draw(results: Mapping[str, Rounds], path: Path) -> None:
    """Draw a panel for each echo scenario, with a bar for each library."""
    keys = [key for key in CHARTED if key in results]
    rows = [row for row in ROWS if any(results[key].keys() & {*ROWS[row]} for key in keys)]
    figure = Figure(figsize=(1.2 + 2.1 * len(keys), 1.7 + 0.34 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    columns = [[_share(results[key], ROWS[row]) for row in rows] for key in keys]
    largest = max((share for shares in columns for share in shares if share), default=1.0)
    for key, panel, shares in zip(keys, panels, columns, strict=True):
        colours = [OURS if row == OURS_ROW else PEERS for row in rows]
        panel.barh(range(len(rows)), [share or 0.0 for share in shares], 0.72, color=colours)
        for at, share in enumerate(shares):
            text = _percent(share)
            panel.text(
                (share or 0.0) + 0.03, at, text, va="center", fontsize=8, color=INK, bbox=PAPER
            )
        panel.axvline(1.0, color=INK, linewidth=1, linestyle=(0, (3, 2)))
        title = SCENARIOS[key].title.replace(", ", "\n")
        panel.set_title(title, loc="left", fontsize=9, color=INK)
        panel.set_xlim(0, max(1.0, largest) + 0.3)
        panel.set_xticks([0, 0.5, 1.0], ["0", "50%", "C"], fontsize=8)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(rows)), rows, fontsize=9)
    panels[0].invert_yaxis()
    figure.suptitle(
        "Echoes per second of the server's processor time, as a share of a loop in C",
        fontsize=11,
        color=INK,
    )
    figure.savefig(path, dpi=150)


def _share(rounds: Rounds, servers: Iterable[str]) -> float | None:
    """Return the share of the limit of the best of these servers; None without a measurement."""
    known = ratios(best_of(rounds, "per_cpu", servers), best_of(rounds, "per_cpu", (LIMIT,)))
    return median(known) if known else None


def _percent(share: float | None) -> str:
    if share is None:
        return "not measured"
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"
