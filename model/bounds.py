"""What a manifest may say at most: far above what a bundle needs, far below what breaks a server."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from model.halting import FAR, MOST_STEPS

LONGEST_AXIS = 2**20
MOST_VALUES = 2**24  # of a tensor's fixed sizes, multiplied
MOST_TENSORS, MOST_AXES, MOST_CLASSES, MOST_FILES = 64, 8, 10_000, 1_000
MOST_WORDS, MOST_POINTS, MOST_PROBLEMS = 100_000, 10_000, 10**9
MOST_BYTES = 2**40
MOST_LEVELS = 32  # of lists and objects in one another, where a manifest is free to say what it likes
MOST_SCORES, MOST_LIMITS = 64, 32
LONGEST_EXAMPLE = 2**20  # characters of JSON; every answer about the model shows it
INTEGERS = 2**64


def plain(content: Any, level: int = 0) -> Any:
    """Content that can be written as JSON wherever it is shown. Raises ValueError for any other."""
    if level > MOST_LEVELS:
        raise ValueError(f"nested more than {MOST_LEVELS} levels deep")
    if isinstance(content, str):
        content.encode()
    elif isinstance(content, float | int) and not -INTEGERS < content < INTEGERS:
        raise ValueError("a number over 64 bits, or none at all")
    elif isinstance(content, dict):
        for part in (*content, *content.values()):
            plain(part, level + 1)
    elif isinstance(content, list | tuple):
        for part in content:
            plain(part, level + 1)
    return content


def _short(example: Any) -> Any:
    """An example that is not too long to show. Raises ValueError for any other."""
    if len(json.dumps(plain(example))) > LONGEST_EXAMPLE:
        raise ValueError(f"over {LONGEST_EXAMPLE} characters of JSON; take a smaller problem")
    return example


Name = Annotated[str, Field(max_length=128)]
Text = Annotated[str, Field(max_length=10_000)]
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Size = Annotated[int, Field(ge=1, le=LONGEST_AXIS)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(ge=-FAR, le=FAR, allow_inf_nan=False)]
Facts = Annotated[dict[str, Any], AfterValidator(plain)]
Example = Annotated[Any, AfterValidator(_short)]


class Part(BaseModel):
    """Base of every section of a manifest: immutable, and strict about what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
