"""How a problem stands that goes on from an earlier request, and what is kept of one at its end."""

from __future__ import annotations

from model.codecs import Tensors
from model.halting import HaltReason
from model.row import Floats, Layout
from service.engine.messages import Thought
from service.engine.queue import Progress
from service.engine.steering import states_of
from service.runners.runner import Carry

Shown = tuple[Floats | None, Floats | None, Tensors | None]  # logits, scores, state
NOTHING: Shown = (None, None, None)


def shown_before(progress: Progress, layout: Layout) -> Shown:
    """What a problem showed before this request, if it goes on from one."""
    before, view = progress.trajectory.before, progress.trajectory.view
    if before is None or before.logits is None:
        return NOTHING
    state = None
    if view is not None and before.carry.arrays is not None:
        state = view.of(states_of(before.carry, layout))
    return before.logits, before.scores, state


def end_before(progress: Progress) -> tuple[HaltReason, str | None]:
    """Why a problem is over of which nothing is left to think about, and what went wrong with it."""
    before = progress.trajectory.before
    assert before is not None, "what has never been thought about has steps left"
    if before.error is not None or (
        before.reason is HaltReason.HALTED and progress.trajectory.goes_on_as_before
    ):
        return before.reason, before.error
    return HaltReason.BUDGET, None


def thought_of(
    progress: Progress, carry: Carry | None, reason: HaltReason, shown: Shown, error: str | None, taken: int
) -> Thought | None:
    """What is kept of a problem that is to be kept; None where it was cut off in mid-thought.

    carry: where it stands, of those that have taken a step and ended by themselves.
    """
    trajectory = progress.trajectory
    if not trajectory.keeps or (taken and carry is None and error is None):
        return None
    if carry is None:  # as it came: its state may have been changed for a step that was never taken
        carry = trajectory.before.carry if trajectory.before else Carry(trajectory.row)
    logits, scores, _ = shown
    steered = trajectory.steering is not None or (trajectory.before is not None and trajectory.before.steered)
    return Thought(
        carry,
        reason,
        trajectory.rule,
        trajectory.min_steps,
        progress.held_for,
        logits,
        scores,
        progress.tally,
        error,
        steered,
    )
