"""Examples for the API's description: requests that work as they stand, for the models that are served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.engine.served_model import ServedModel
from service.http.v2.tensors import DATATYPES

Body = dict[str, Any]
CANCELLED = "my-request"  # an id as callers choose them
FEW = 8  # steps


def add_examples(description: Body, newest: Mapping[str, ServedModel]) -> None:
    """Give every operation an example of each parameter in its path and of its body, in place.

    An example of a body and the parameters of the same name belong together.
    """
    for path, operations in description["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["examples"] = _of_parameter(parameter["name"], newest)
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if content is not None and path.endswith("/infer") and path.startswith("/v2/"):
                content["examples"] = {
                    name: _shown(name, _encoded(served)) for name, served in newest.items()
                }
            elif content is not None and path.startswith("/v2/"):
                content["examples"] = {"plain": _shown("as it stands", {})}
    infer = description["paths"]["/v1/infer"]["post"]["requestBody"]["content"]["application/json"]
    for served in list(newest.values())[:1]:
        infer["examples"] = {**infer["examples"], **_of_terms(served)}


def _of_parameter(name: str, newest: Mapping[str, ServedModel]) -> Body:
    if name == "id":
        return {"plain": {"value": CANCELLED}}
    versions = {each: served.bundle.manifest.version for each, served in newest.items()}
    return {each: {"value": version if name == "version" else each} for each, version in versions.items()}


def _of_terms(served: ServedModel) -> Body:
    """What else a request may ask for, with the first model's problem."""
    problem = {"model": served.bundle.manifest.name, "input": served.codec.example, "max_steps": FEW}
    if served.bundle.manifest.readout.kind == "tensor":
        return {"stream": _shown("a stream of steps", {**problem, "stream": True})}
    act = {"step": 2, "op": "noise", "seed": 1}
    return {
        "stream": _shown("a stream of steps", {**problem, "stream": True}),
        "exactly": _shown("exactly so many steps", {**problem, "halting": {"criterion": "none"}}),
        "several": _shown("several problems", {**problem, "input": [served.codec.example] * 2}),
        "samples": _shown("noisy samples that vote", {**problem, "samples": {"count": 4, "seed": 7}}),
        "paired": _shown("an intervention, compared", {**problem, "interventions": [act], "paired": True}),
        "kept": _shown("a thought that is kept", {**problem, "keep": 60}),
    }


def _encoded(served: ServedModel) -> Body:
    """The codec's example as a row of encoded tensors, as /v2 takes them."""
    tensors = served.codec.encode(served.codec.example, "example")
    inputs = [
        {
            "name": spec.name,
            "shape": [1, *tensors[spec.name].shape],
            "datatype": DATATYPES[spec.dtype],
            "data": tensors[spec.name].ravel().tolist(),
        }
        for spec in served.bundle.manifest.inputs
    ]
    return {"inputs": inputs, "parameters": {"max_steps": FEW}}


def _shown(summary: str, value: Body) -> Body:
    return {"summary": summary, "value": value}
