"""What the pictures have in common: colours for light and dark, axes, ticks, legends."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

Colour = tuple[float, float, float, float]
MOST_COLOURS = 40  # of one picture: as many depths or levels as a legend can hold


@dataclass(frozen=True)
class Theme:
    """The colours of one appearance: text, lines in the background, emphasis, and the scale for depth."""

    ink: str
    faint: str
    quiet: str
    warn: str
    scale: tuple[str, str, str, str]

    def colours(self, count: int) -> list[Colour]:
        """`count` colours from shallow to deep; a single one comes from the middle."""
        scale = LinearSegmentedColormap.from_list("depth", self.scale)
        return [scale(0.6)] if count == 1 else [scale(place) for place in np.linspace(0, 1, count)]


LIGHT = Theme("#1f2933", "#d9dee4", "#8a95a1", "#c8553d", ("#f2b134", "#4fb286", "#2f7fb5", "#3b2f7f"))
DARK = Theme("#e4e8ee", "#39424e", "#8a95a1", "#ff8a70", ("#ffd166", "#5fd3a2", "#58b4f0", "#b39dff"))


def darkened(svg: str) -> str:
    """A picture drawn in the light theme, in the colours of the dark one."""
    dark = dict(zip(_plain(LIGHT), _plain(DARK), strict=True))
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: dark.get(found[0], found[0]), svg)


@cache
def _plain(theme: Theme) -> tuple[str, ...]:
    """Every colour that a picture may have, as SVG writes it; the same places in both themes."""
    scale = [to_hex(colour) for count in range(1, MOST_COLOURS + 1) for colour in theme.colours(count)]
    return (theme.ink, theme.faint, theme.quiet, theme.warn, *theme.scale, *scale)


def new_panels(theme: Theme, title: str, count: int, even: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of `count` pairs of axes over each other that share their x axis; unless `even`, the first
    one is twice as high.
    """
    figure = Figure(figsize=(7.6, 1.2 + 3.2 * count if even else 2.6 + 1.15 * count), layout="constrained")
    figure.patch.set_alpha(0)
    every = figure.subplots(
        count, 1, sharex=True, squeeze=False, height_ratios=[1 if even else 2, *[1] * (count - 1)]
    )
    axes = [_styled(theme, one) for one in every[:, 0]]
    axes[0].set_title(title, loc="left", color=theme.ink, fontsize=12, fontweight="bold", pad=28)
    return figure, axes


def new_figure(theme: Theme, title: str) -> tuple[Figure, Axes]:
    """A figure of one pair of axes in the theme's colours, on a transparent ground."""
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    figure.patch.set_alpha(0)
    axes = _styled(theme, figure.subplots())
    axes.set_title(title, loc="left", color=theme.ink, fontsize=12, fontweight="bold", pad=12)
    return figure, axes


def _styled(theme: Theme, axes: Axes) -> Axes:
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.quiet)
    axes.tick_params(which="both", colors=theme.ink, labelsize=9)
    axes.xaxis.label.set_color(theme.ink)
    axes.yaxis.label.set_color(theme.ink)
    axes.grid(visible=True, color=theme.faint, linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def add_legend(axes: Axes, theme: Theme, columns: int = 4) -> None:
    """A legend without a frame below the axes, where it hides nothing."""
    legend = axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=columns, frameon=False, fontsize=9
    )
    for text in legend.get_texts():
        text.set_color(theme.ink)


def depth_ticks(axes: Axes, depths: Sequence[float]) -> None:
    """Ticks at the measured depths, without those that would run into the one before."""
    room = max(depths) / 28
    shown: list[float] = []
    for depth in depths:
        if not shown or depth - shown[-1] >= room:
            shown.append(depth)
    axes.set_xticks(shown, [f"{depth:g}" for depth in shown])


def log_ticks(axes: Axes) -> None:
    """A logarithmic latency axis with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
