"""Which criteria wait, as a picture: the oracle, lines that coincide, what a quiet readout is called."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from model.network.scores import SCORES
from tests.training.test_figures import evaluation, followed, words
from training.judge.figures.halting import draw_halting


def lines(axes: Axes) -> dict[str, Line2D]:
    """The drawn lines of a picture's legend, by name without threshold, as they lie in the picture."""
    handles, names = axes.get_legend_handles_labels()
    drawn = [line for line in axes.get_lines() if len(np.asarray(line.get_xdata()))]
    colours = {name.split()[0]: handle.get_color() for handle, name in zip(handles, names, strict=True)}  # type: ignore[attr-defined]
    return {
        name: next(line for line in drawn if line.get_color() == colour) for name, colour in colours.items()
    }


def test_the_oracle_is_its_mean_and_no_criterion_is_drawn_below_its_own() -> None:
    of = evaluation("graph", 70)
    axes = draw_halting(of, followed(of, 12, 1.0)).axes[0]
    shown = lines(axes)
    means = [trace.oracle().mean() for trace in of.traces["matched"].values()]
    assert np.asarray(shown["oracle"].get_ydata()).tolist() == means
    entries = {entry["criterion"]: entry for entry in of.report["halting"]}
    assert set(shown) - {"oracle"} == {*SCORES} <= {*entries}
    for name in SCORES:
        line = shown[name]
        places = line.get_transform().transform(np.column_stack([line.get_xdata(), line.get_ydata()]))
        true = axes.transData.transform(np.column_stack([line.get_xdata(), line.get_ydata()]))
        assert (places[:, 1] >= true[:, 1] - 1e-9).all()


def test_lines_that_coincide_are_drawn_side_by_side() -> None:
    of = evaluation("graph", 70)
    figure = draw_halting(of, followed(of, 12, 1.0))
    shown = lines(figure.axes[0])
    heights = {}
    for name in ("latent_diff", "cosine", "acceleration"):  # which move together in these traces
        line = shown[name]
        drawn = line.get_transform().transform(np.column_stack([line.get_xdata(), line.get_ydata()]))
        heights[name] = drawn[-1, 1]
    assert len({round(height, 3) for height in heights.values()}) == 3
    assert "side by side" in figure.axes[0].get_xlabel()


def test_stillness_is_said_to_mean_nothing_only_where_the_readout_deceives() -> None:
    of = evaluation("logic", 40)
    assert "b  Stillness at the readout means nothing" in words(draw_halting(of, followed(of, 12, 1e-7)))
    for case in (followed(of, 12, 1.0), followed(of, 1, 1e-7)):
        assert "b  Scores while one thinks" in words(draw_halting(of, case))


def test_the_step_at_which_answers_are_final_is_shown_where_they_turn() -> None:
    of = evaluation("text", 40)
    assert "half of the answers\nare final: step 12" in words(draw_halting(of, followed(of, 12, 1.0)))
    assert not [text for text in words(draw_halting(of, followed(of, 1, 1.0))) if "are final" in text]
