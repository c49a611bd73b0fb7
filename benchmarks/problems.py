"""Problems to measure with, their budgets, and an engine that works on them without a thread of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from measure import Clock

from model.bundle import Bundle, read_bundle
from model.codecs import CodecLimits, codec_of
from model.row import Layout, Row
from service.engine.engine import Engine
from service.engine.messages import Submission, Trajectory

BUNDLES = {"graph": Path("bundles/graph/1"), "logic": Path("bundles/logic/2")}
MEAN, LIMIT = 12, 64  # steps
Problem = dict[str, Any]
T = TypeVar("T")


def bundle_of(task: str) -> Bundle:
    """A shipped bundle."""
    return read_bundle(BUNDLES[task])


def problem(task: str, draw: np.random.Generator, size: int) -> Problem:
    """A problem of about so many tokens: a sparse random digraph, or a formula of one operator."""
    if task == "logic":
        return {"expression": "".join(draw.choice(["T&", "F|", "T|", "F&"]) for _ in range(size // 2)) + "T"}
    edges = draw.integers(0, size, (2 * size, 2)).tolist()
    return {"edges": edges, "nodes": list(range(size)), "source": 0, "target": size - 1}


def rows_of(bundle: Bundle, number: int, size: int) -> list[Row]:
    """Rows of problems of this size, the same ones whenever it is called."""
    draw, task = np.random.default_rng(0), bundle.manifest.task
    codec, layout = codec_of(bundle.manifest, CodecLimits()), Layout(bundle.manifest)
    return [layout.row(codec.encode(problem(task, draw, size), "input")) for _ in range(number)]


def budgets(kind: str, number: int) -> list[int]:
    """Steps for each problem: all LIMIT (fixed), geometric of mean MEAN, or an eighth at LIMIT and 4 else."""
    if kind == "fixed":
        return [LIMIT] * number
    if kind == "bimodal":
        return [LIMIT if place % 8 == 0 else 4 for place in range(number)]
    return np.minimum(np.random.default_rng(0).geometric(1 / MEAN, number), LIMIT).tolist()


def run(engine: Engine, problems: list[Trajectory], clock: Clock) -> float:
    """Seconds of this clock until all are done."""
    began = clock()
    engine.submit(Submission(tuple(problems), time.monotonic()))
    while not engine.idle:
        engine.step()
    return clock() - began


def waves(items: list[T], size: int) -> list[list[T]]:
    """Cut into lists of `size`; the last may be shorter."""
    return [items[at : at + size] for at in range(0, len(items), size)]
