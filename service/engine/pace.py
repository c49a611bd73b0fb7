"""Whether looking ahead pays: the engine is run both ways on the model's own example, before it serves.

On a device that works while the host decides, a row that is launched again before its last step is
decided keeps the device busy; the price is a step in vain for every row that halts. Which of the two
is larger depends on the card, the model and the host, so it is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from model.manifest import Manifest
from model.row import Row
from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Finished, Submission, Trajectory
from service.engine.observer import Unobserved
from service.errors import StartupError
from service.runners.runner import Runner

STEPS, ROUNDS = 16, 3
LONG_STEP = 10e-3  # seconds; beside such a step the host's part is nothing, and a step in vain is dear


def ahead_pays(
    manifest: Manifest,
    runner: Runner,
    limits: EngineLimits,
    row: Row,
    clock: Callable[[], float] = time.perf_counter,
) -> bool:
    """Whether rows get through more steps a second with two under way than with one, full slots each.

    Leaves the runner empty, and looking ahead as it did before. Raises StartupError where the model cannot
    take these steps.
    """
    before, seconds = runner.ahead, {False: float("inf"), True: float("inf")}
    try:
        runner.ahead = False
        _seconds_per_step(manifest, runner, limits, row, 1, clock)  # the first step is like no other
        if _seconds_per_step(manifest, runner, limits, row, 1, clock) > LONG_STEP:
            return False
        for ahead in [False, True] * ROUNDS:
            runner.ahead = ahead
            took = _seconds_per_step(manifest, runner, limits, row, STEPS, clock)
            seconds[ahead] = min(seconds[ahead], took)
    finally:
        runner.ahead = before
    in_vain = 1 + 1 / manifest.steps.default  # steps that are computed for one that is needed
    return seconds[True] * in_vain < seconds[False]


def _seconds_per_step(
    manifest: Manifest,
    runner: Runner,
    limits: EngineLimits,
    row: Row,
    steps: int,
    clock: Callable[[], float],
) -> float:
    """All slots think about the same problem."""
    engine = Engine(manifest, runner, limits, Unobserved())
    engine.submit(Submission(tuple([Trajectory(row, steps)] * limits.slots), time.monotonic()))
    began = clock()
    while not engine.idle:
        for _, event in engine.step():
            if isinstance(event, Finished) and event.error is not None:
                raise StartupError(f"{manifest.name} cannot take a step: {event.error}")
    return (clock() - began) / steps
