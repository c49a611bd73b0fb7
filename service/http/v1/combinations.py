"""Which fields of a request go together, and with which models."""

from __future__ import annotations

from model.errors import RequestError
from model.manifest import Manifest
from service.http.v1.kept import KeptRequest
from service.http.v1.schemas import InferRequest
from service.settings import Settings


def check_combinations(
    request: InferRequest, manifest: Manifest, settings: Settings, kept: KeptRequest | None
) -> None:
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
