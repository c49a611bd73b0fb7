"""What a request asks to be done to its thoughts: what goes together, and the work that it comes to."""

from __future__ import annotations

from dataclasses import replace

from model.errors import RequestError
from model.manifest import Manifest
from service.engine.messages import Problem
from service.engine.steering import Intervention, Noise, Steering
from service.http.v1.kept import Kept
from service.http.v1.schemas import InferRequest, Samples
from service.http.v1.trajectories import Trajectories
from service.settings import Settings

MOST_ROWS = 16  # trajectories of a request, for every problem that it may have


def check_samples(trajectories: Trajectories, max_problems: int) -> None:
    """Raises RequestError where there would be too many of them."""
    rows, most = trajectories.each * trajectories.inputs, MOST_ROWS * max_problems
    if rows > most:
        raise RequestError(
            f"{trajectories.each} samples of {trajectories.inputs} problems are too many; this server takes "
            f"{most} in all",
            "samples.count",
        )


def check_steering(request: InferRequest, manifest: Manifest, settings: Settings, kept: Kept | None) -> None:
    """Raises RequestError for what does not go together, or means nothing for this model."""
    if kept is not None and request.input is not None:
        raise RequestError("continue_from goes on with the kept input; leave input out", "input")
    if request.paired and not request.interventions:
        raise RequestError("paired compares with and without interventions; give some", "paired")
    if request.samples is not None:
        beside = {
            "paired": request.paired,
            "keep": request.keep is not None,
            "continue_from": kept is not None,
        }
        for name, given in beside.items():
            if given:
                raise RequestError(f"{name} does not go with samples; leave one of them out", name)
    if request.keep is not None and request.keep > settings.keep_seconds:
        raise RequestError(f"this server keeps thoughts for {settings.keep_seconds:g} s at most", "keep")
    tallied = request.aggregate in ("mode", "mean")
    entropy = "answer_entropy" in (request.include or ())
    if manifest.readout.kind == "tensor":
        for name, given in (
            ("aggregate", tallied),
            ("include", entropy),
            ("samples", request.samples is not None),
            ("paired", request.paired),
        ):
            if given:
                raise RequestError(
                    f"{manifest.name} answers with a tensor, which has no classes to compare", name
                )
    if kept is not None and (tallied or entropy) and any(thought.tally is None for thought in kept.thoughts):
        raise RequestError(
            "the steps so far were not counted; ask for aggregate or answer_entropy from the beginning",
            "aggregate" if tallied else "include",
        )


def steering_of(
    interventions: tuple[Intervention, ...], samples: Samples | None, sample: int = 0
) -> Steering | None:
    noise = None if samples is None else Noise(samples.noise, samples.seed, sample)
    return Steering(interventions, noise) if interventions or noise else None


def others_of(
    problem: Problem, interventions: tuple[Intervention, ...], request: InferRequest
) -> list[Problem]:
    """The other trajectories of a problem: further samples, or the one without interventions."""
    if request.samples is not None:
        return [
            replace(problem, steering=steering_of(interventions, request.samples, sample))
            for sample in range(1, request.samples.count)
        ]
    if request.paired:
        return [replace(problem, steering=None, every_step=False, view=None, keeps=False)]
    return []
