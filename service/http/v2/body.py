"""What requests and answers of the protocol look like: a JSON object, and raw tensors that may follow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field

from model.bounds import MOST_AXES, MOST_TENSORS
from model.errors import RequestError
from model.halting import FAR, MOST_STEPS
from service.http.json_body import Part, read_json, validated
from service.http.v1.answers import to_json
from service.http.v1.schemas import LONGEST_DEADLINE, LONGEST_NAME
from service.http.v2.tensors import Values, datatype_of, to_bytes

HEADER_LENGTH = "inference-header-content-length"
LONGEST_ID = 128  # characters
# How names begin that clients keep for themselves, or that other servers know.
UNSUPPORTED = ("sequence_", "priority", "timeout", "headers", "triton_", "shared_memory")
Name = Annotated[str, Field(max_length=LONGEST_NAME)]


class InputParameters(Part):
    binary_data_size: int | None = Field(default=None, ge=0, description="Bytes of it after the JSON.")


class Input(Part):
    """One encoded tensor of all rows, batch axis first."""

    name: Name
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(fail_fast=True, max_length=MOST_AXES)]
    datatype: Name
    parameters: InputParameters | None = None
    data: Any = Field(default=None, description="All values in one list, or nested lists.")


class OutputParameters(Part):
    binary_data: bool | None = Field(default=None, description="Absent: what binary_data_output says.")


class Output(Part):
    """A tensor that is asked for."""

    name: Name
    parameters: OutputParameters | None = None


class Parameters(Part):
    """How long to think about each row; what is absent is as in /v1/infer."""

    max_steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    min_steps: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    halting_criterion: Name | None = None
    halting_threshold: float | None = Field(default=None, ge=-FAR, le=FAR, allow_inf_nan=False)
    halting_patience: int | None = Field(default=None, ge=1, le=MOST_STEPS)
    deadline_ms: float | None = Field(default=None, gt=0, le=LONGEST_DEADLINE, allow_inf_nan=False)
    binary_data_output: bool | None = Field(
        default=None, description="Outputs as raw bytes; absent: as JSON."
    )


class OpenInferRequest(Part):
    """Rows to think about. Raw tensors follow the JSON in the order of the inputs."""

    id: str | None = Field(default=None, max_length=LONGEST_ID)
    model_name: Name | None = Field(default=None, description="May repeat the name in the path.")
    parameters: Parameters | None = None
    inputs: Annotated[list[Input], Field(fail_fast=True, min_length=1, max_length=MOST_TENSORS)]
    outputs: Annotated[list[Output], Field(fail_fast=True, max_length=2 * MOST_TENSORS)] | None = Field(
        default=None, description="Absent: logits, steps and halt_reason."
    )


class Answered(BaseModel):
    """A tensor of an answer; raw where it has no data."""

    name: str
    datatype: str
    shape: list[int]
    parameters: InputParameters | None = None
    data: list[bool | float | str | None] | None = None


class OpenInferAnswer(BaseModel):
    """The outputs of all rows, in the request's order."""

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, str] | None = Field(default=None, description="`warnings`, where there are any.")
    outputs: list[Answered]


@dataclass(frozen=True)
class ParsedRequest:
    """A request as it was sent."""

    request: OpenInferRequest
    raw: bytes  # what follows the JSON


def read_request(body: bytes, header: str | None) -> ParsedRequest:
    """header: the JSON's length where tensors follow it. Raises InvalidJson or RequestError."""
    length = len(body) if header is None else int(header) if header.isdecimal() and len(header) < 16 else -1
    if not 0 <= length <= len(body):
        raise RequestError(f"must be the length of the JSON in a body of {len(body)} bytes", HEADER_LENGTH)
    request = validated(read_json(body[:length]), OpenInferRequest, UNSUPPORTED)
    return ParsedRequest(request, body[length:])


@dataclass(frozen=True)
class Tensor:
    """A tensor of an answer."""

    name: str
    values: Values
    binary: bool


def answer_bytes(content: dict[str, Any], tensors: Sequence[Tensor]) -> tuple[bytes, dict[str, str]]:
    """The body of an answer, and its headers; `content` is what stands in it beside the outputs."""
    outputs, raw = [], []
    for tensor in tensors:
        values = tensor.values
        output: dict[str, Any] = {
            "name": tensor.name,
            "datatype": datatype_of(values.dtype),
            "shape": list(values.shape),
        }
        if tensor.binary:
            raw.append(to_bytes(values))
            output["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            output["data"] = values.ravel().tolist()
        outputs.append(output)
    text = to_json({**content, "outputs": outputs})
    if not raw:
        return text, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return b"".join((text, *raw)), headers
