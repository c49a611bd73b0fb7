"""Steps of a batch whose rows live in host memory: what is read, computed, shown and written back."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from model.codecs import Tensors
from model.manifest import Manifest
from model.row import Arrays, Floats
from model.trial import Graphs
from service.runners.runner import (
    COURSE_SECONDS,
    Course,
    Flight,
    Headway,
    Landing,
    View,
    embed_apart,
    failed,
)
from service.runners.store import Seat, SlotStore


class HostSteps(ABC):
    """A backend adds the computations. Threads may step disjoint batches at once."""

    backend: str

    def __init__(self, manifest: Manifest, slots: int) -> None:
        self._manifest = manifest
        self.store = SlotStore(manifest, slots)
        self._scores = (len(manifest.scores),)  # the shape of a row's
        rows = slots + 1  # and a probe
        self._no_scores = np.full((rows, *self._scores), np.nan, np.float32)
        self._carried = len(manifest.state) + len(manifest.memory)
        columns = [manifest.score_names.index(name) for name in manifest.lean or ()]
        self._lean_columns = slice(columns[0], columns[0] + 1) if len(columns) == 1 else columns

    @abstractmethod
    def _run_embed(self, inputs: Arrays) -> Arrays: ...

    @abstractmethod
    def _run_step(self, inputs: Arrays) -> Arrays: ...

    def _run_lean(self, inputs: Arrays) -> Arrays:
        raise NotImplementedError(f"{self.backend} has no lean step")

    @property
    def graphs(self) -> Graphs:
        """The two computations, for whoever checks them."""
        return Graphs(self._run_embed, self._run_step)

    def embed(self, slot: int) -> None:
        seat = self.store.seats[slot]
        if seat.fresh:
            self.store.embed([seat], self._run_embed(self.store.layout.stack([seat.carry.row])))

    def _take_steps(
        self,
        flight: Flight,
        seats: Sequence[Seat],
        lean: bool,
        course: Course | None,
        wanted: Callable[[], bool],
    ) -> Landing:
        """A step of a batch, or several on a course until it is `wanted`; who is new is embedded first."""
        entered = began = time.perf_counter()

        def ends() -> bool:
            return wanted() or time.perf_counter() - began >= COURSE_SECONDS

        headway = None if course is None else Headway(course, ends)
        carried = self._carries(lean)
        try:
            broken: list[int] = []
            if fresh := [seat for seat in seats if seat.fresh]:
                unread = embed_apart(fresh, len(seats) == 1, self._embed_seats)
                broken = [seats.index(seat) for seat in unread]
                began = time.perf_counter()
            where, inputs = self.store.gather(seats, lean)
            outputs = (self._run_lean if lean else self._run_step)(inputs)
            shown = self._shown(seats, outputs[carried:], lean, broken)
            again: Callable[[], Arrays] | None = None
            while headway is not None and headway.goes_on(*shown):
                if again is None:
                    fit = int(COURSE_SECONDS / (time.perf_counter() - began))
                    again = self._repeated(lean, inputs, outputs, min(fit, headway.left))
                outputs = again()
                shown = self._shown(seats, outputs[carried:], lean, broken)
            steps = 1 if headway is None else headway.taken
            self.store.scatter(seats[0].table, where, outputs[:carried], steps)
        except Exception as error:  # noqa: BLE001  a backend may raise anything; this batch fails alone
            before = None if headway is None else np.full(len(seats), headway.taken)
            return failed(flight, error, before)
        ended = time.perf_counter()
        return Landing(
            flight,
            *shown,
            self._state,
            ended - began,
            embed_seconds=began - entered,
            unembedded=broken,
            taken=np.full(len(seats), steps) if steps > 1 else None,
            held_for=headway.held_for if headway is not None and steps > 1 else None,
        )

    def _repeated(
        self,
        lean: bool,
        inputs: Arrays,
        outputs: Arrays,
        steps: int,  # noqa: ARG002  for a backend that has to prepare
    ) -> Callable[[], Arrays]:
        """What takes the step after the one from these inputs to these outputs, and then the next, and so on.

        It may write to what it was given and to what it has returned. steps: how often it may well be called.
        """
        run = self._run_lean if lean else self._run_step
        first, carried = len(self._manifest.context), self._carries(lean)

        def again() -> Arrays:
            nonlocal outputs
            inputs[first : first + carried] = outputs[:carried]
            if self._manifest.takes_depth:
                inputs[-1] = inputs[-1] + 1
            outputs = run(inputs)
            return outputs

        return again

    def _carries(self, lean: bool) -> int:
        """How many tensors go from a step to the next."""
        return len(self._manifest.state) if lean else self._carried

    def _embed_seats(self, fresh: Sequence[Seat]) -> None:
        rows = [seat.carry.row for seat in fresh]
        self.store.embed(fresh, self._run_embed(self.store.layout.stack(rows)))

    def _shown(
        self, seats: Sequence[Seat], outputs: Arrays, lean: bool, broken: list[int]
    ) -> tuple[Floats, Floats]:
        """A step's logits and scores, as the manifest has them. Raises ValueError for any other.

        Scores that a lean step does not compute are not numbers, and neither is what broken rows show.
        """
        logits, scores = (*outputs, self._no_scores[: len(seats), :0])[:2]
        if lean:
            scored, scores = scores, self._no_scores[: len(seats)].copy()
            scores[:, self._lean_columns] = scored
        readout = seats[0].table.readout
        for name, array, shape in (("logits", logits, readout), ("scores", scores, self._scores)):
            if array.shape != (len(seats), *shape):
                raise ValueError(f"{name} of shape {array.shape}, not {(len(seats), *shape)}")
        if broken:
            logits = np.array(logits, np.result_type(logits, np.float16))
            logits[broken] = np.nan
        return logits, scores

    def _state(self, slot: int, view: View) -> Tensors:
        return view.of(self.store.state(slot))
