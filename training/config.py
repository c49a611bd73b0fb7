"""What a training run is: every choice a field, written as JSON into the run's folder.

`--set network.width=128` overrides one field. What training starts from is in training/recipes.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from model.network.config import NOTHING_GIVEN, RecurrentConfig
from training.errors import ConfigError
from training.paper.baselines import Baseline
from training.tasks.graph.task import GraphTask
from training.tasks.logic.task import LogicTask
from training.tasks.text.task import TextTask

TASK_NAME = "task.name"  # in files, not in --set: the command line names the task
MOVED = {  # fields by the names that files of before have
    "network.layers": "baseline.layers",
    "network.adaptive_time": "baseline.adaptive_time",
    "ponder": "baseline.ponder",
}

AnyTask = GraphTask | LogicTask | TextTask
TASKS: dict[str, type[AnyTask]] = {task.name: task for task in (GraphTask, LogicTask, TextTask)}


@dataclass(frozen=True)
class CurriculumConfig:
    """When problems get harder and when burn-in grows (training/curriculum.py)."""

    start: int = 1  # the first difficulty
    end: int = 5  # the last; evaluation goes far beyond
    advance_below: float = 0.08  # one harder when the running loss falls under this
    burn_in: int = 40  # most steps without gradient before those with; 0: none
    burn_in_below: float = 0.15  # burn-in grows by one step while the running loss is under this
    burn_in_every: int = 25  # updates between two growths
    burn_in_growth: float = 0.0  # share by which it grows at a time, if that is more than a step
    # How many of the steps there may be are drawn: evenly, or evenly in their logarithm, so that a few
    # batches burn in for very long.
    burn_in_draw: Literal["even", "logarithmic"] = "even"
    late_share: float = 0.0  # of batches that learn what is given only after burn-in (training/unroll.py)

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError("curriculum.start must be at least 0 and at most curriculum.end")
        if self.burn_in < 0 or self.burn_in_every < 1:
            raise ValueError("curriculum.burn_in must be at least 0, burn_in_every at least 1")
        if self.burn_in_growth < 0:
            raise ValueError(f"curriculum.burn_in_growth is {self.burn_in_growth}, but must not be negative")
        if not 0 <= self.late_share <= 1:
            raise ValueError(f"curriculum.late_share is {self.late_share}, but must be in [0, 1]")


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Everything is counted in updates: the clock decides nothing."""

    task: AnyTask = field(default_factory=GraphTask)
    network: RecurrentConfig = field(default_factory=lambda: RecurrentConfig(halting_head=True))
    baseline: Baseline = field(default_factory=Baseline)  # another network than ours, to compare with
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    updates: int = 1600
    head_updates: int = 300  # of the halting head, after the others, where the network has one
    batch: int = 64  # rows per update, shared by all processes
    # A batch runs first_steps + steps_per_unit * difficulty + U{0..extra_steps} steps with gradient.
    first_steps: int = 0
    steps_per_unit: int = 1
    extra_steps: int = 2
    short_share: float = 0.0  # of batches that get fewer steps: what cannot be known yet is "unknown"
    intermediate: float = 0.0  # weight of the mean loss after the graded steps before the last; 0: silent
    noise: float = 0.4  # deviation of the Gaussian noise on the state before every step
    noise_ramp: int = 300  # updates until it has its full strength
    learning_rate: float = 2e-3
    token_rate: float = 1.0  # times that, of what a token is read as (network.reading)
    unrest: float = 0.0  # weight of how far the counters are from whole moves (network.counters), ...
    unrest_from: int = 600  # ... a tenth of it until this update, all of it 300 later
    warmup: int = 100  # updates; then cosine to 0
    weight_decay: float = 1e-2
    clip: float = 0.1  # largest norm of the gradient; at 1.0 a spike late in training undoes the answer
    ema: float = 0.995  # decay of the averaged weights, which are what is exported; 0: the last weights
    seed: int = 0  # of the initial weights, the noise and the dropout
    data_seed: int = 0  # of the problems and of the number of steps
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on a GPU that has it
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # Batches that a process of its own draws ahead, for a GPU that would wait. The problems are others than
    # with 0, and those of one number the same every time.
    prefetch: int = 0
    threads: int = 1  # per process; small batches are not faster with more
    checkpoint_every: int = 250  # updates

    def __post_init__(self) -> None:
        for name in ("updates", "batch", "threads", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.network.halting_head and self.head_updates < 1:
            raise ValueError("head_updates is 0, but must be at least 1 for a network with a halting head")
        counts = ("head_updates", "first_steps", "steps_per_unit", "extra_steps", "noise_ramp", "warmup")
        weights = ("noise", "token_rate", "unrest", "intermediate", "weight_decay")
        for name in (*counts, *weights, "unrest_from", "prefetch", "seed", "data_seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must not be negative")
        if not self.learning_rate > 0 or not self.clip > 0:
            raise ValueError("learning_rate and clip must be positive")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}, but must be in [0, 1)")
        if self.network.perception != self.task.interface:
            raise ValueError(f"network.perception must be {self.task.interface} for {self.task.name}")
        if not 0 <= self.short_share <= 1:
            raise ValueError(f"short_share is {self.short_share}, but must be in [0, 1]")
        open_ended = any(spec.answer is None for spec in self.task.classes)
        if self.short_share and not open_ended:
            raise ValueError('short_share needs a task that knows the answer "unknown"')
        if self.curriculum.late_share and self.network.perception in NOTHING_GIVEN and not open_ended:
            raise ValueError(
                'curriculum.late_share needs tokens that are given, or a task that knows "unknown"'
            )
        if self.steps(self.curriculum.start) < 1:
            raise ValueError("first_steps and steps_per_unit leave no step for the first difficulty")
        answers = len(self.task.classes)
        if self.network.classes != answers:
            raise ValueError(f"network.classes must be {answers}, as many as the task has answers")
        if self.baseline.compares and (self.noise or self.curriculum.burn_in or self.network.reading):
            raise ValueError("a baseline needs noise=0, curriculum.burn_in=0 and network.reading=0")
        if self.steps(self.curriculum.start) < self.baseline.layers:
            raise ValueError("first_steps must reach baseline.layers, so that every block is trained")
        every_node = isinstance(self.task, GraphTask) and self.task.ask == "every-node"
        if every_node and self.network.target_role:
            raise ValueError(
                "task.ask=every-node needs network.target_role=false: only one node is the target"
            )

    @property
    def all_updates(self) -> int:
        """Those of the network, then those of its halting head."""
        return self.updates + (self.head_updates if self.network.halting_head else 0)

    def steps(self, difficulty: int) -> int:
        """How many steps a problem of this difficulty is given at least."""
        return self.first_steps + self.steps_per_unit * difficulty


def configure(start: TrainConfig, overrides: Iterable[str]) -> TrainConfig:
    """A configuration with fields replaced by "dotted.name=value". Raises ConfigError, one line."""
    values = flat(start)
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"{override!r} is not of the form name=value")
        if name not in values or name == TASK_NAME:
            raise ConfigError(f"unknown setting {name!r}; {_suggestion(name, values.keys() - {TASK_NAME})}")
        values[name] = _value(text)
    return from_flat(values)


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """The configuration as nested dictionaries, with the name of its task."""
    return {**asdict(config), "task": {"name": config.task.name, **asdict(config.task)}}


def flat(config: TrainConfig) -> dict[str, Any]:
    """The configuration's fields by dotted name: {"network.width": 64, ...}."""
    return _flatten(as_dict(config))


def from_flat(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration with these fields, validated. Raises ConfigError naming the first fault."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *parents, leaf = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    task = nested["task"]
    part = ["task"]
    try:
        nested["task"] = TypeAdapter(TASKS[task.pop("name")]).validate_python(task)
        part = []
        return TypeAdapter(TrainConfig).validate_python(nested)
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(str(place) for place in (*part, *fault["loc"]))
        message = fault["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{name}: {message}" if name else message) from error


def to_json(config: TrainConfig) -> str:
    """The configuration as it stands in the run's folder and in the manifest."""
    return json.dumps(as_dict(config), indent=2) + "\n"


def from_json(text: str) -> TrainConfig:
    """The configuration of a run's folder; a field that is newer than the run has its default.

    Raises ConfigError where it is not one, or where it has fields that are unknown.
    """
    return _written(text)[0]


def differences(text: str, config: TrainConfig) -> list[str]:
    """The dotted names of what a configuration that was written has otherwise; newer fields do not count.

    Raises ConfigError as from_json.
    """
    written, names = _written(text)
    ours, theirs = flat(config), flat(written)
    return [name for name in names if theirs[name] != ours.get(name)]


def _written(text: str) -> tuple[TrainConfig, list[str]]:
    """The configuration that a file holds, and which fields it names."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"the run's configuration is not JSON ({error})") from error
    values = _flatten(content) if isinstance(content, dict) else {}
    values = {MOVED.get(name, name): value for name, value in values.items()}
    task = values.get(TASK_NAME)
    if not isinstance(task, str) or task not in TASKS:
        raise ConfigError(f"the run's configuration is from another version of Fathom (task {task!r})")
    config = from_flat(values)
    odd = sorted(values.keys() - flat(config).keys())
    if "network" not in content:
        odd.append("network")
    if odd:
        raise ConfigError(
            f"the run's configuration is from another version of Fathom (fields {', '.join(odd)})"
        )
    return config, list(values)


def _suggestion(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant who mistyped a name, by its last part."""
    last = {value.rpartition(".")[2]: value for value in known}
    if near := get_close_matches(name.rpartition(".")[2], last, 2, 0.7):
        return f"did you mean {' or '.join(last[each] for each in near)}?"
    return "docs/training.md and the config.json of any run have them all"


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in content.items():
        values.update(
            _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
        )
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # a bare word
