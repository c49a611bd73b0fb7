"""What requests and answers of the protocol look like: a JSON object, and raw tensors that may follow it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from model.bounds import MOST_AXES, MOST_TENSORS
from model.errors import RequestError
from model.halting import FAR, MOST_STEPS
from service.http.v1.answers import to_json
from service.http.v1.requests import EXPECTED, read_json
from service.http.v1.schemas import LONGEST_DEADLINE, LONGEST_NAME, Part
from service.http.v2.tensors import Values, datatype_of, to_bytes

HEADER_LENGTH = "inference-header-content-length"
LONGEST_ID = 128  # characters
MOST_SHOWN = 100  # characters of a name that a message repeats
RESERVED = (
    "sequence_",
    "priority",
    "timeout",
    "headers",
    "triton_",
)  # names that clients keep for themselves
Name = Annotated[str, Field(max_length=LONGEST_NAME)]


class InputParameters(Part):
    binary_data_size: int | None = Field(default=None, ge=0, description="Bytes of it after the JSON.")


class Input(Part):
    """One encoded tensor of all rows, batch axis first."""

    name: Name
    shape: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(max_length=MOST_AXES)]
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
    inputs: Annotated[list[Input], Field(min_length=1, max_length=MOST_TENSORS)]
    outputs: Annotated[list[Output], Field(max_length=2 * MOST_TENSORS)] | None = Field(
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


PARTS: dict[tuple[str, ...], type[BaseModel]] = {
    (): OpenInferRequest,
    ("parameters",): Parameters,
    ("inputs",): Input,
    ("inputs", "parameters"): InputParameters,
    ("outputs",): Output,
    ("outputs", "parameters"): OutputParameters,
}


@dataclass(frozen=True)
class Asked:
    """A request as it was sent."""

    request: OpenInferRequest
    raw: bytes  # what follows the JSON


def read_request(body: bytes, header: str | None) -> Asked:
    """header: the JSON's length where tensors follow it. Raises InvalidJson or RequestError."""
    length = len(body) if header is None else int(header) if header.isdecimal() and len(header) < 16 else -1
    if not 0 <= length <= len(body):
        raise RequestError(f"must be the length of the JSON in a body of {len(body)} bytes", HEADER_LENGTH)
    content = read_json(body[:length])
    for where, found in _parts(content):
        _refuse_unknown(where, found)
    try:
        return Asked(OpenInferRequest.model_validate(content), body[length:])
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        expected = EXPECTED.get(fault["type"])
        reason = expected.format(**fault.get("ctx", {})) if expected else fault["msg"]
        field = ".".join(str(part) for part in fault["loc"])
        raise RequestError(f"{'' if field else 'the body '}{reason}", field or None) from None


def _parts(content: object) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The objects of a request, as far as it is one: with what PARTS calls each."""
    if not isinstance(content, dict):
        return
    yield (), content
    for name in ("inputs", "outputs"):
        listed = content.get(name)
        if isinstance(listed, list) and len(listed) > 2 * MOST_TENSORS:
            raise RequestError(f"has {len(listed)} tensors, more than any model", name)
        for item in listed if isinstance(listed, list) else []:
            if isinstance(item, dict):
                yield (name,), item
                if isinstance(found := item.get("parameters"), dict):
                    yield (name, "parameters"), found
    if isinstance(found := content.get("parameters"), dict):
        yield ("parameters",), found


def _refuse_unknown(where: tuple[str, ...], found: dict[str, Any]) -> None:
    known = PARTS[where].model_fields
    for name in found:
        if name not in known:
            what = "is not supported here" if name.startswith((*RESERVED, "shared_memory")) else "is unknown"
            field = ".".join((*where, name[:MOST_SHOWN]))
            raise RequestError(f"{what}; there is {', '.join(known)}", field)


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
