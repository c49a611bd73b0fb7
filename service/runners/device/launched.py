"""A launch of the device runner: what is under way, and how to read what it shows once it is done."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from model.codecs import Tensors
from model.row import Bucket, Layout
from service.runners.device.lane import Mark
from service.runners.device.tables import Buffers, Table
from service.runners.runner import Course, Flight, Landing, View


@dataclass(frozen=True)
class Launched:
    """A launch that is under way."""

    flight: Flight
    table: Table
    places: list[int]
    course: Course | None
    buffers: Buffers | None  # what it shows, once the mark is passed; None where it failed
    states: dict[int, tuple[int, Bucket]]  # by slot: the row in the copies below, and its real lengths
    copies: list[Tensor]
    broken: list[int]  # places in the batch of those who could not be embedded
    mark: Mark
    began: float
    embedded: float  # seconds that it took to embed those who were new, where the host knows it
    error: Exception | None = None

    def landing(self, layout: Layout, seconds: float) -> Landing:
        """What it shows, copied: its buffers may be used again."""
        assert self.buffers is not None, "it failed"
        manifest = layout.manifest
        said = self.buffers.shown.numpy()[self.places]
        if self.broken:
            said[self.broken] = np.nan
        logits, scores = np.split(said, [said.shape[1] - len(manifest.scores)], axis=1)
        taken, held_for = self.table.headway(self.buffers, self.places, self.course)
        return Landing(
            self.flight,
            logits.reshape(len(said), *layout.shape(manifest.logits, self.table.bucket)),
            scores,
            partial(self._state, layout),
            seconds,
            embed_seconds=self.embedded,
            unembedded=self.broken,
            taken=taken,
            held_for=held_for,
        )

    def _state(self, layout: Layout, slot: int, view: View) -> Tensors:
        row, lengths = self.states[slot]
        whole = zip(layout.manifest.state, self.copies, strict=True)
        return view.of({spec.name: layout.cut(spec, copy.numpy()[row], lengths) for spec, copy in whole})
