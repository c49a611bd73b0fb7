"""Shapes that a manifest gives: how far a row is padded, and what a readout of several axes shows."""

from __future__ import annotations

import numpy as np

from model.manifest import Manifest
from model.readout import answer_of
from model.row import Layout

CELLS = Manifest.model_validate(
    {
        "name": "cells",
        "version": "1",
        "task": "cells",
        "codec": {"name": "tensors"},
        "readout": {"kind": "tokens", "axis": ["H", 2]},
        "classes": [{"label": "off", "answer": 0}, {"label": "on", "answer": 1}],
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["B", "H", 2]}],
        "state": [{"name": "state", "dtype": "float32", "shape": ["B", "H", 2, 4]}],
        "logits": {"name": "logits", "dtype": "float32", "shape": ["B", "H", 2, 2]},
        "axes": {"H": {"max": 20}},
        "steps": {"default": 4, "limit": 8},
        "files": {},
    }
)


def test_a_row_is_never_padded_beyond_what_the_model_takes() -> None:
    layout = Layout(CELLS)
    buckets = [layout.row({"x": np.zeros((length, 2), np.float32)}).bucket for length in (3, 9, 17, 20)]
    assert buckets == [(8,), (16,), (20,), (20,)]


def test_the_cells_of_a_grid_are_answered_row_by_row() -> None:
    on = np.array([[0, 1], [1, 1], [0, 0]])
    logits = np.stack((-on, on), axis=-1).astype(np.float32)  # (3, 2, 2)
    shown = answer_of(CELLS, logits)
    assert shown.answer == [0, 1, 1, 1, 0, 0]
    assert shown.label == ["off", "on", "on", "on", "off", "off"]
    assert isinstance(shown.probabilities, list)
    assert shown.probabilities[1]["on"] > 0.8
