"""What can go wrong with a run: one tree, and how a command ends on each."""

from __future__ import annotations

from typing import ClassVar

from model.errors import BundleError, FathomError


class TrainingError(FathomError):
    """What training, judging and exporting raise."""

    exit_code: ClassVar[int] = 2  # a caller's mistake


class ConfigError(TrainingError):
    """A training configuration that is unknown, out of range or not this run's."""


class RunError(TrainingError):
    """A run's folder that cannot be read or continued."""


class RunFailed(RunError):
    """What was asked for could have been done, and was not: a full disk, a loss that is no number."""

    exit_code = 1


class ExportFailed(BundleError):
    """An export that does not compute what torch computes."""

    exit_code: ClassVar[int] = 1


class Interrupted(TrainingError):
    """The run was asked to stop, and has saved what it had."""

    exit_code = 130
