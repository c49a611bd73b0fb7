"""A table whose rows think in the kernel: in place, and on a course each until it halts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.manifest import Manifest
from model.row import Bucket
from service.runners.device.lane import Lane
from service.runners.device.tables import Buffers, Table, Taken
from service.runners.fused.network import FusedNetwork, told
from service.runners.fused.orders import NUMBERS, ORDERS, for_one_step, orders_of
from service.runners.runner import Course


def table_of(
    lane: Lane, module: FusedNetwork, manifest: Manifest, bucket: Bucket, sizes: Sequence[int]
) -> Table:
    """The table for a bucket: rows that do not fit on chip are stepped by model.ts."""
    if module.shape.fits(*bucket):
        return ThinkingTable(lane, module, manifest, bucket, sizes)
    return Table(lane, module.scripted, manifest, bucket, sizes)


class ThinkingTable(Table):
    """Told of each row is its order; a row that is to take no step is left alone by the kernel."""

    def __init__(
        self, lane: Lane, module: FusedNetwork, manifest: Manifest, bucket: Bucket, sizes: Sequence[int]
    ) -> None:
        """As for Table."""
        super().__init__(lane, module, manifest, bucket, sizes)
        self._told = torch.zeros((len(self._depth), NUMBERS), dtype=torch.int32, device=lane.device)

    def step(self, places: Sequence[int], lean: bool = False, course: Course | None = None) -> Buffers:
        buffers = super().step(places, lean, course)
        buffers.told.copy_(self._told, non_blocking=True)
        return buffers

    def headway(self, buffers: Buffers, places: list[int], course: Course | None) -> Taken:
        if course is None:
            return None, None
        said: Any = buffers.told.numpy()[list(places)].view(ORDERS)[:, 0]
        # The kernel says for how long the criterion has held after the last step. If it did not hold then, it
        # makes no difference for how long it had before.
        held_for = np.maximum(said["held_for"].astype(np.int64) - 1, 0)
        held_for = np.where(course.terms["agrees"], course.held_for, held_for)
        return said["steps"].astype(np.int64), held_for

    def _orders(self, rows: int, course: Course | None) -> Tensor:
        if course is None:
            orders = for_one_step(rows)
        else:
            orders = orders_of(course.terms, course.depth, course.held_for, course.steps)
        return told(orders)

    def _step(self, size: int, lean: bool) -> None:  # noqa: ARG002  all scores are computed
        """As far as their orders say, of the first `size` rows."""
        orders = self._told[:size]
        self._module.think([tensor[:size] for tensor in self._tensors], orders, self._shown[:size])
        self._depth[:size] += orders[:, -1]
