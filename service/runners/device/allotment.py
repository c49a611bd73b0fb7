"""What a model takes of a device's memory: all of its tables and graphs, made before anybody is served."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from model.errors import first_line
from model.manifest import Manifest
from model.row import Bucket
from service.errors import StartupError
from service.runners.device.lane import Lane
from service.runners.device.tables import Table, buckets_of, row_bytes, table_bytes

log = logging.getLogger("fathom")
SHARE = 0.9  # of the free memory that tables may take; graphs and what a step computes need the rest
GIB = 2**30
REMEDY = "lower --slots, or serve fewer models on it"


class Allotment:
    """The tables of one model by bucket. Those that can be foreseen are there from the start on a GPU."""

    def __init__(
        self, lane: Lane, made: Callable[[Bucket], Table], manifest: Manifest, slots: int, lean: bool = False
    ) -> None:
        """made: what makes the table for a bucket. lean: whether there is a lean step.

        Raises StartupError where tables and graphs do not fit, or the model cannot take a step.
        """
        self._lane, self._made, self._manifest, self._slots = lane, made, manifest, slots
        self._lean = lean
        self._tables: dict[Bucket, Table] = {}
        self._foreseen = buckets_of(manifest)
        self._wanted = sum(table_bytes(manifest, bucket, slots) for bucket in self._foreseen)
        free = lane.free_bytes()
        if free is not None:
            self._must_fit(free)
        if lane.on_gpu:
            self._prepare()

    @property
    def taken(self) -> int:
        """How many tables hold rows."""
        return sum(bool(table.taken) for table in self._tables.values())

    def table(self, bucket: Bucket) -> Table:
        """The table for rows of this bucket."""
        if bucket not in self._tables:
            with self._lane.work():
                self._tables[bucket] = self._made(bucket)
        return self._tables[bucket]

    def close(self) -> None:
        """Let go of all memory."""
        self._tables.clear()
        self._lane.give_back()

    def _must_fit(self, free: int) -> None:
        if self._wanted > SHARE * free:
            largest = row_bytes(self._manifest, self._foreseen[0]) / 2**20
            raise StartupError(
                f"{self._slots} slots of {self._manifest.name} take {self._wanted / GIB:.1f} GiB on the "
                f"device ({len(self._foreseen)} sizes, a row of the largest {largest:.1f} MiB), but "
                f"{free / GIB:.1f} GiB are free: {REMEDY}"
            )

    def _prepare(self) -> None:
        """Capture what embeds and what steps, of every size of every table, the largest first."""
        name, before, wanted = self._manifest.name, self._lane.free_bytes() or 0, self._wanted
        try:
            for bucket in self._foreseen:
                with self._lane.work():
                    self.table(bucket).prepare(self._lean)
        except torch.OutOfMemoryError as error:
            raise StartupError(
                f"the steps of {name} do not fit on the device: of {before / GIB:.1f} GiB that were free its "
                f"tables of {self._slots} slots take {wanted / GIB:.1f} GiB, and graphs and what a step "
                f"computes more than the rest: {REMEDY}"
            ) from error
        except Exception as error:  # whatever a module makes of it
            raise StartupError(f"{name} cannot take a step: {first_line(error)}") from error
        after = self._lane.free_bytes() or 0
        log.info(
            "%s on %s: %.2f GiB of tables, %.2f GiB of graphs and work space, %.2f GiB are left",
            name,
            self._lane.name,
            wanted / GIB,
            max(0, before - after - wanted) / GIB,
            after / GIB,
        )
