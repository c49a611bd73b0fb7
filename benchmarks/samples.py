"""Whether samples help: accuracy of the majority and of the surest, and what agreement says about it.

    python benchmarks/samples.py URL MODEL problems.jsonl --counts 1,8 --noises 0.1,0.3 --criterion sure
    python benchmarks/samples.py URL logic --towers 28 --criterion known

Asks a running server. The first line is one trajectory without noise; each other line is one count and one
noise on the same problems. Agreement is that of the majority; its AUC is the chance that a right majority has
more of it than a wrong one (a half: it says nothing; none: all are right, or all wrong).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from client.answers import Result
from client.blocking import Client
from client.terms import Halting, Samples
from loadtest.drive.cases import Case, read_cases
from training.tasks.logic.expressions import tower, value_of

TOGETHER = 64  # trajectories in one request


@dataclass(frozen=True)
class Line:
    """What one count and noise did. Shares are of problems; steps are of a problem, over its trajectories."""

    count: int
    noise: float
    majority: float
    surest: float
    agreement: float
    auc: float | None
    unanimous: float
    unanimous_right: float | None
    steps: float


@dataclass(frozen=True)
class Asking:
    """A server and what every request to it says beside its samples."""

    client: Client
    model: str
    halting: Halting | None
    max_steps: int | None
    seed: int

    def plain(self, cases: Sequence[Case]) -> Line:
        """One trajectory each, without noise."""
        results, steps = self._results(cases, None)
        right = float(np.mean(rights(cases, results)))
        return Line(1, 0.0, right, right, 1.0, None, 1.0, right, steps / len(cases))

    def sampled(self, cases: Sequence[Case], count: int, noise: float) -> Line:
        """Some noisy trajectories each. Where the surest is in a minority the majority is asked for, too."""
        terms: Samples = {"count": count, "noise": noise, "seed": self.seed}
        surest, steps = self._results(cases, {**terms, "choose": "surest"})
        majority = list(surest)
        odd = [place for place, result in enumerate(surest) if share(result) < largest_share(result)]
        if odd:
            asked, _ = self._results([cases[place] for place in odd], {**terms, "choose": "majority"})
            for place, result in zip(odd, asked, strict=True):
                majority[place] = result
        right, agreement = rights(cases, majority), np.array([share(result) for result in majority])
        one = agreement == 1
        return Line(
            count=count,
            noise=noise,
            majority=float(right.mean()),
            surest=float(rights(cases, surest).mean()),
            agreement=float(agreement.mean()),
            auc=area(agreement, right),
            unanimous=float(one.mean()),
            unanimous_right=float(right[one].mean()) if one.any() else None,
            steps=steps / len(cases),
        )

    def _results(self, cases: Sequence[Case], samples: Samples | None) -> tuple[list[Result], int]:
        """Results in the order of the cases, and the steps that all trajectories took."""
        results: list[Result] = []
        steps = 0
        size = max(1, TOGETHER // (samples["count"] if samples else 1))
        for some in (cases[first : first + size] for first in range(0, len(cases), size)):
            answer = self.client.infer(
                self.model,
                [dict(case.input) for case in some],
                halting=self.halting,
                max_steps=self.max_steps,
                samples=samples,
            )
            results += answer.results
            steps += answer.usage.steps
        return results, steps


def rights(cases: Sequence[Case], results: Sequence[Result]) -> NDArray[np.bool_]:
    """Whether each answer, or its label, is the case's: (problems,)."""
    return np.array(
        [
            json.dumps(case.label) in (json.dumps(result.answer), json.dumps(result.label))
            for case, result in zip(cases, results, strict=True)
        ]
    )


def share(result: Result) -> float:
    """Of the trajectories that agree with the answer; of a single one all."""
    return result.samples.agreement if result.samples else 1.0


def largest_share(result: Result) -> float:
    """Of the trajectories that agree with the most frequent answer."""
    if result.samples is None:
        return 1.0
    votes = result.samples.votes.values()
    return max(votes) / sum(votes)


def area(score: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    """The area under the curve of a score that should be larger where something is right; ties are a half."""
    good, bad = score[right][:, None], score[~right]
    if not good.size or not bad.size:
        return None
    return float(((good > bad) + 0.5 * (good == bad)).mean())


def towers(levels: int, count: int, seed: int) -> list[Case]:
    """Logic expressions whose value passes so many levels of brackets, half of them true."""
    rng = np.random.default_rng(seed)
    found: dict[bool, list[Case]] = {True: [], False: []}
    while min(map(len, found.values())) < (count + 1) // 2:
        expression = tower(rng, levels)
        value = value_of(expression)
        found[value].append(Case({"expression": expression}, value))
    return [case for pair in zip(*found.values(), strict=False) for case in pair][:count]


def main(
    url: Annotated[str, typer.Argument(help="a running server")],
    model: Annotated[str, typer.Argument(help="its name there")],
    problems: Annotated[Path | None, typer.Argument(help="labelled problems, one a line")] = None,
    towers_of: Annotated[int | None, typer.Option("--towers", help="logic of so many levels instead")] = None,
    most: Annotated[int, typer.Option(min=1, help="so many problems, or all that there are")] = 64,
    counts: Annotated[str, typer.Option(help="samples of a problem")] = "1,8",
    noises: Annotated[str, typer.Option(help="relative to the root mean square of the state")] = "0.1,0.3",
    criterion: Annotated[str | None, typer.Option(help="when to halt (the bundle's rule)")] = None,
    threshold: Annotated[float | None, typer.Option(help="of the criterion")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="of each trajectory")] = None,
    seed: Annotated[int, typer.Option(help="of noise and towers")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object a line")] = False,
) -> None:
    """Ask with each count and noise, and print what came of it."""
    if (problems is None) == (towers_of is None):
        raise typer.BadParameter("give a file of problems, or --towers")
    cases = read_cases(problems, model)[:most] if problems else towers(towers_of or 1, most, seed)
    if any(case.label is None for case in cases):
        raise typer.BadParameter("every problem needs its label")
    halting: Halting | None = None
    if criterion:
        halting = {"criterion": criterion, "threshold": threshold}
    with Client(url, timeout=None) as client:
        asking = Asking(client, model, halting, max_steps, seed)
        lines = []
        for each, noise in [(0, 0.0), *product(map(int, counts.split(",")), map(float, noises.split(",")))]:
            line = asking.sampled(cases, each, noise) if each else asking.plain(cases)
            lines.append(line)
            if as_json:
                typer.echo(json.dumps({"model": model, "problems": len(cases), **asdict(line)}))
    if not as_json:
        Console().print(table(f"{len(cases)} problems of {model}", lines))


def table(title: str, lines: Sequence[Line]) -> Table:
    """For people."""
    shown = Table(title=title)
    for heading in Line.__dataclass_fields__:
        shown.add_column(heading.replace("_", " "), justify="right")
    for line in lines:
        shown.add_row(*map(_cell, asdict(line).values()))
    return shown


def _cell(value: Any) -> str:
    return "none" if value is None else str(value) if isinstance(value, int) else f"{value:.3g}"


if __name__ == "__main__":
    typer.run(main)
