"""What a request looks like: its fields, their bounds, and what the API page says of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from model.halting import FAR, MOST_STEPS
from service.http.json_body import Part

LONGEST_DEADLINE = 86_400_000  # ms, a day
LONGEST_NAME = 256  # characters of a model or a criterion
LONGEST_ID = 128  # characters of a request's id
MOST_PARTS = 16  # items of a list of a few known words
MOST_INTERVENTIONS = 64
MOST_TOKENS = 4096  # that an intervention names, or numbers that it gives
MOST_SAMPLES = 64  # of one problem
LARGEST_SEED = 2**63 - 1


class Halting(Part):
    """When to stop before max_steps: a criterion with its threshold, or an accuracy to keep."""

    criterion: str | None = Field(
        default=None,
        max_length=LONGEST_NAME,
        description="none, confidence, entropy, entropy_diff, kl, latent_diff, cosine, ...",
    )
    threshold: float | None = Field(
        default=None,
        ge=-FAR,
        le=FAR,
        allow_inf_nan=False,
        description="What the score is compared with. Absent: the criterion's usual one.",
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        le=MOST_STEPS,
        description="For how many steps running it must hold. Absent: 1.",
    )
    target_accuracy: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Instead of a criterion: the cheapest calibrated threshold that keeps this.",
    )


class Latents(Part):
    """Which part of the state to return, and how."""

    select: Literal["none", "readout", "pooled", "full"] = Field(
        default="none",
        description="readout: the tokens the answer is read from; pooled: the mean of all; full: (N, D).",
    )
    dtype: Literal["float32", "float16"] = "float32"
    encoding: Literal["base64", "json"] = Field(
        default="base64", description="base64 of little-endian values, or lists."
    )


def _numbers(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [schema, {"type": "array", "minItems": 1, "maxItems": MOST_TOKENS, "items": schema}]


# By hand (service/http/v1/interventions.py), for the library's words about unions are no help to a caller.
Tokens = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"const": "all"}, _numbers({"type": "integer", "minimum": 0})[1]]}),
]
Number = {"type": "number", "minimum": -FAR, "maximum": FAR}


class Intervention(Part):
    """What is done to the state of every problem just before a step."""

    step: int = Field(ge=1, le=MOST_STEPS, description="1 is the first.")
    op: Literal["zero", "mean", "noise", "scale", "set", "add"]
    tokens: Tokens = Field(default="all", description="Places along the state's first axis, or all.")
    value: Annotated[Any, WithJsonSchema({"anyOf": [*_numbers(Number), {"type": "null"}]})] = Field(
        default=None, description="A number, or one per channel. noise: absent, 0.5; zero, mean: none."
    )
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, description="Of noise.")
    state: str | None = Field(
        default=None, max_length=LONGEST_NAME, description="Which state, where the model has several."
    )


class Samples(Part):
    """Several noisy trajectories of each problem, one of which is the answer."""

    count: int = Field(ge=1, le=MOST_SAMPLES)
    noise: float = Field(
        default=0.1,
        ge=0,
        le=FAR,
        allow_inf_nan=False,
        description="Before every step, relative to the root mean square of the row's state.",
    )
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    choose: Literal["majority", "surest"] = Field(
        default="majority",
        description="The answer that most give; or that of the best score: the criterion's, else confidence.",
    )


NEEDED: Any = [{"required": ["input"]}, {"required": ["continue_from"]}]  # one of the two


class InferRequest(Part):
    """One problem or a list of them, and how long to think about each."""

    model_config = ConfigDict(json_schema_extra={"anyOf": NEEDED})

    model: str | None = Field(
        default=None,
        max_length=LONGEST_NAME,
        description="model or model@version. May be absent when one model is served.",
    )
    input: Any = Field(default=None, description="One problem, or a list; each gets its own depth and halt.")
    max_steps: int | None = Field(
        default=None, ge=1, le=MOST_STEPS, description="The step budget. Absent: the bundle's default."
    )
    min_steps: int | None = Field(
        default=None, ge=1, le=MOST_STEPS, description="No halting before this step."
    )
    halting: Halting | None = Field(default=None, description="Absent: the bundle's default rule.")
    deadline_ms: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_DEADLINE,
        allow_inf_nan=False,
        description="From arrival; then the best answer so far is returned.",
    )
    stream: bool = Field(default=False, description="Send every step as a server-sent event.")
    include: list[Literal["probabilities", "scores", "trace", "answer_entropy"]] | None = Field(
        default=None,
        max_length=MOST_PARTS,
        description='What results hold beside the answer. Absent: ["probabilities"].',
    )
    latents: Latents | None = Field(default=None, description="Absent: no latents.")
    aggregate: Literal["last", "mode", "mean"] | None = Field(
        default=None,
        description="The answer of the last step, that of most steps, or that of the mean probabilities.",
    )
    samples: Samples | None = Field(default=None, description="Absent: one trajectory, without noise.")
    interventions: (
        Annotated[list[Intervention], Field(fail_fast=True, max_length=MOST_INTERVENTIONS)] | None
    ) = None
    paired: bool = Field(default=False, description="Also think without the interventions, and compare.")
    keep: float | None = Field(
        default=None,
        gt=0,
        le=10**6,
        allow_inf_nan=False,
        description="Seconds to hold the thought for continue_from, up to the server's keep_seconds.",
    )
    continue_from: str | None = Field(
        default=None,
        min_length=1,
        max_length=LONGEST_ID,
        description="The id of a request that was kept: think on, instead of an input.",
    )
