"""What the pictures have in common: type, colours, and ticks.

Colours are cividis and Okabe and Ito's, which hold up under colour blindness and in grey; criteria
differ by their markers as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes

from training.task import Task

STYLE: Any = {  # matplotlib's own type spells out every key there is
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "savefig.dpi": 220,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "fathom",  # names inside an SVG are the same every time
}
INK, GREY = "#1a1a1a", "#777777"
ORANGE, BLUE = "#D55E00", "#0072B2"

ON_LATENTS = {"latent_diff": (BLUE, "o"), "cosine": ("#009E73", "s"), "acceleration": ("#56B4E9", "D")}
ON_READOUTS = {
    "confidence": (ORANGE, "o"),
    "entropy": ("#E69F00", "s"),
    "entropy_diff": ("#CC79A7", "D"),
    "kl": ("#8B1A1A", "^"),
    "argmax_stability": (GREY, "v"),
}
LOOKS = {**ON_LATENTS, **ON_READOUTS, "learned": (INK, "P"), "known": (INK, "*")}

POWERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def look(criterion: str) -> tuple[str, str]:
    """Colour and marker of a criterion; one that is not known here is grey."""
    return LOOKS.get(criterion, ("#999999", "X"))


def waits(task: Task) -> bool:
    """Whether the model says "not known yet" where others have to guess."""
    return any(spec.answer is None for spec in task.classes)


def count_ticks(axis: Any, largest: int) -> None:
    """Powers of two up to a number of steps, at most eight of them, on a logarithmic axis."""
    powers = [power for power in POWERS if power <= largest]
    powers = powers[:: 1 + (len(powers) - 1) // 8]
    axis.set_ticks(powers, [str(power) for power in powers])
    axis.set_ticks([], minor=True)


def apart(places: Sequence[float], least: float) -> list[int]:
    """Which of these places along an axis have room for a label: the ends, and others in between.

    least is the room that a label needs, as a share of the whole.
    """
    room = least * abs(places[-1] - places[0])
    kept = [0]
    for index in range(1, len(places) - 1):
        if min(abs(places[index] - places[kept[-1]]), abs(places[-1] - places[index])) >= room:
            kept.append(index)
    return kept if len(places) == 1 else [*kept, len(places) - 1]


def difficulty_axis(axes: Axes, buckets: Iterable[int], unit: str) -> None:
    """Difficulties along x: logarithmic where they start above 0 and span a lot."""
    buckets = list(buckets)
    if min(buckets) > 0 and max(buckets) >= 16 * min(buckets):
        axes.set_xscale("log")
        count_ticks(axes.xaxis, max(buckets))
    else:
        shown = [buckets[index] for index in apart(buckets, 1 / 9)]
        axes.set_xticks(shown, [str(bucket) for bucket in shown])
    axes.set_xlabel(unit)
