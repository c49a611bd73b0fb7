"""The two contracts (`--protocol`) that a step-budgeted model is asked through: bytes out, a `Response` in.

`FathomV1` is the service's own `/v1/infer`; `OpenInferenceV2` is the Open Inference Protocol, for any
server that takes `max_steps` as a request parameter.
"""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from loadtest.drive.cases import Case, JsonObject, Label

Halting = dict[str, Any]


class BadResponse(Exception):
    """The server answered 200 with something that is not an answer. The message says what is missing."""


@dataclass(frozen=True, slots=True)
class Response:
    """What one answer says, as far as it says it; times in milliseconds by the server's clock."""

    steps: int | None = None
    halt_reason: str | None = None
    queue_ms: float | None = None
    compute_ms: float | None = None
    total_ms: float | None = None
    answers: tuple[Label, ...] = ()  # every form of the answer that a label may be written in

    def correct(self, label: Label | None) -> bool | None:
        """Whether the answer is the label; None when one of the two is unknown."""
        if label is None or not self.answers:
            return None
        return any(type(answer) is type(label) and answer == label for answer in self.answers)


class Dialect(Protocol):
    """One contract: where to send, what, and how to read the answer."""

    @property
    def path(self) -> str: ...

    @property
    def streams(self) -> bool: ...

    def encode(self, case: Case, max_steps: int) -> bytes: ...

    def decode(self, body: bytes) -> Response: ...


@dataclass(frozen=True)
class FathomV1:
    """`POST /v1/infer`, whole or as a stream of server-sent events."""

    model: str
    halting: Halting | None
    deadline_ms: float | None
    streams: bool

    path = "/v1/infer"

    def encode(self, case: Case, max_steps: int) -> bytes:
        request: JsonObject = {"model": self.model, "input": case.input, "max_steps": max_steps}
        if self.halting is not None:
            request["halting"] = self.halting
        if self.deadline_ms is not None:
            request["deadline_ms"] = self.deadline_ms
        if self.streams:
            request["stream"] = True
        return json.dumps({**request, **case.terms}).encode()

    def decode(self, body: bytes) -> Response:
        """Raises BadResponse when the body is not an answer of the contract."""
        try:
            answer = json.loads(body)
            result = answer["results"][0]
            timings = answer.get("timings_ms", {})
            said = (result.get("answer"), result.get("label"))
            return Response(
                steps=int(result["steps"]),
                halt_reason=result.get("halt_reason"),
                queue_ms=timings.get("queue"),
                compute_ms=timings.get("compute"),
                total_ms=timings.get("total"),
                answers=tuple(form for form in said if isinstance(form, bool | int | str | list)),
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise BadResponse(f"not an answer of /v1/infer: {type(error).__name__} {error}") from error


@dataclass(frozen=True)
class OpenInferenceV2:
    """`POST /v2/models/{model}/infer` with JSON tensors; step budget and halting go as request parameters."""

    model: str
    halting: Halting | None
    deadline_ms: float | None
    datatypes: dict[str, str]  # tensor name → V2 datatype, from the model's metadata; guessed where missing

    streams = False

    @property
    def path(self) -> str:
        return f"/v2/models/{self.model}/infer"

    def encode(self, case: Case, max_steps: int) -> bytes:
        """Takes `{"tensors": {name: nested lists}}`; the lists' own nesting gives the shape, batch axis
        included.
        """
        parameters: JsonObject = {"max_steps": max_steps}
        for name, value in (self.halting or {}).items():
            parameters[f"halting_{name}"] = value
        if self.deadline_ms is not None:
            parameters["deadline_ms"] = self.deadline_ms
        inputs = []
        for name, nested in case.input["tensors"].items():
            shape, flat = flatten(nested)
            datatype = self.datatypes.get(name) or guess_datatype(flat)
            inputs.append({"name": name, "shape": shape, "datatype": datatype, "data": flat})
        return json.dumps({"inputs": inputs, "parameters": parameters}).encode()

    def decode(self, body: bytes) -> Response:
        """Reads `steps`, `halt_reason` and the largest of `logits` where the server sends them."""
        try:
            outputs = {output["name"]: output.get("data", []) for output in json.loads(body)["outputs"]}
            _, logits = flatten(outputs.get("logits", []))
            return Response(
                steps=int(outputs["steps"][0]) if outputs.get("steps") else None,
                halt_reason=str(outputs["halt_reason"][0]) if outputs.get("halt_reason") else None,
                answers=(max(range(len(logits)), key=logits.__getitem__),) if logits else (),
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise BadResponse(f"not an answer of /v2: {type(error).__name__} {error}") from error


def flatten(nested: Any) -> tuple[list[int], list[Any]]:
    """The shape of nested lists and their items in row-major order. Raises ValueError for ragged ones."""
    if not isinstance(nested, list):
        return [], [nested]
    parts = [flatten(item) for item in nested]
    if any(shape != parts[0][0] for shape, _ in parts):
        raise ValueError("a tensor's lists must all be of one length")
    return [len(nested), *(parts[0][0] if parts else [])], [item for _, items in parts for item in items]


def guess_datatype(flat: list[Any]) -> str:
    """The V2 datatype of JSON values: BOOL, INT64 or FP32."""
    if flat and all(isinstance(value, bool) for value in flat):
        return "BOOL"
    return "INT64" if flat and all(isinstance(value, int) for value in flat) else "FP32"


class EventReader:
    """Server-sent events out of chunks of bytes, as `(event, data)`; comments and unknown fields are passed
    over.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._event = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[tuple[str, bytes]]:
        """The events that `chunk` completes."""
        events = []
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            line = line.removesuffix(b"\r")
            if not line:
                if self._data:
                    events.append((self._event or "message", b"\n".join(self._data)))
                self._event, self._data = "", []
                continue
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"event":
                self._event = value.decode("utf-8", "replace")
            elif name == b"data":
                self._data.append(value)
        return events


def error_code(body: bytes, status: int) -> str:
    """What to call a refusal: the contract's own error code, else the HTTP status."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}"
    return str(error["code"]) if isinstance(error, dict) and "code" in error else f"HTTP {status}"
