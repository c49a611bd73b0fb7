"""The engine in process, against its bare runner and against the other ways to batch rows of unequal depth.

    python benchmarks/engine.py [--rounds 5] [--problems 128] [--json]

- bare:    the runner alone, its batches as large as it would have them, all rows to the same depth: that of
           the fixed budgets, and each plan's mean, for the sooner rows are done, the more are embedded;
- fixed, geometric, bimodal: the engine, with budgets of that kind (benchmarks/problems.py);
- halting: the engine, every row to its own halt by the default rule;
- static:  geometric budgets, each batch stepped until its deepest row is done, then the next one;
- alone:   geometric budgets, one problem after the other.

`of the bare runner` is row-steps per second that were asked for, over the bare runner's; `as deep` is over
those of the bare runner to the plan's own mean depth, so that it shows what the engine loses. `realised` is
how much sooner geometric or bimodal budgets are done than fixed ones, over what their sums promise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from measure import CLOCKS, Clock, Report, paired, parser, ratio, spread
from problems import BUNDLES, LIMIT, budgets, bundle_of, rows_of, run, waves

from service.engine.engine import Engine, EngineLimits
from service.engine.messages import Trajectory
from service.engine.observer import Unobserved
from service.runners.open import open_runner
from service.runners.runner import Carry, Runner

SLOTS, SIZE = 32, 24


def bare(runner: Runner, problems: list[Trajectory], depth: int, clock: Clock) -> float:
    """Seconds for all problems, as many batches at a time as the runner has workers."""
    began = clock()
    for wave in waves(problems, SLOTS):
        for slot, each in enumerate(wave):
            runner.put(slot, Carry(each.row))
        each = math.ceil(len(wave) / runner.workers)  # nobody without work
        width = min(each, runner.rows_per_batch(wave[0].row.bucket))
        batches = waves(list(range(len(wave))), width)
        left = [depth] * len(batches)
        flights: dict[int, int] = {}
        while any(left) or flights:
            for place in range(len(batches)):
                if left[place] and place not in flights.values() and len(flights) < runner.workers:
                    flights[runner.launch(batches[place], [])] = place
                    left[place] -= 1
            for landing in runner.land():
                del flights[landing.flight]
        for slot in range(len(wave)):
            runner.release(slot)
    return clock() - began


def measured(task: str, number: int, rounds: int, clock: Clock, report: Report) -> None:
    """All of it on one bundle."""
    bundle = bundle_of(task)
    rows = rows_of(bundle, number, SIZE)
    runner = open_runner(bundle, "cpu", "auto", SLOTS)
    engine = Engine(bundle.manifest, runner, EngineLimits(SLOTS), Unobserved())
    plans = {
        kind: [Trajectory(row, steps) for row, steps in zip(rows, budgets(kind, number), strict=True)]
        for kind in ("fixed", "geometric", "bimodal")
    }
    geometric, rule = plans["geometric"], bundle.manifest.halting.rule()
    halting = [Trajectory(row, LIMIT, bundle.manifest.halting.min_steps, rule) for row in rows]
    halted = engine.steps
    run(engine, halting, clock)
    halted = engine.steps - halted
    static = [
        [Trajectory(each.row, max(one.max_steps for one in wave)) for each in wave]
        for wave in waves(geometric, SLOTS)
    ]
    needed = {kind: sum(each.max_steps for each in plan) for kind, plan in plans.items()}
    needed |= {"halting": halted, "static": needed["geometric"], "alone": needed["geometric"]}
    depths = {name: max(1, round(steps / number)) for name, steps in needed.items()}
    bares = {f"bare, {depth} steps": depth for depth in sorted({*depths.values()})}
    needed |= {name: number * depth for name, depth in bares.items()}
    ways: dict[str, Callable[[], float]] = {
        **{name: partial(bare, runner, plans["fixed"], depth, clock) for name, depth in bares.items()},
        **{kind: partial(run, engine, plan, clock) for kind, plan in plans.items()},
        "halting": lambda: run(engine, halting, clock),
        "static": lambda: sum(run(engine, wave, clock) for wave in static),
        "alone": lambda: sum(run(engine, [each], clock) for each in geometric),
    }
    seconds = paired(ways, rounds)
    runner.close()
    speed = {name: [needed[name] / each for each in seconds[name]] for name in ways}
    table = {
        name: {
            "row-steps": needed[name],
            "row-steps/s": spread(speed[name]),
            "of the bare runner": ratio(speed[name], speed[f"bare, {LIMIT} steps"]),
            "as deep": ratio(speed[name], speed[f"bare, {depths.get(name, bares.get(name))} steps"]),
            "realised": ratio(speed[name], speed["fixed"]),
        }
        for name in ways
    }
    report.add(
        f"{task}: {number} problems of {SIZE} tokens, {SLOTS} slots, {runner.backend} on {runner.device}",
        table,
    )


def main() -> None:
    arguments = parser(__doc__, rounds=5)
    arguments.add_argument("--problems", type=int, default=128, help="Problems of a round.")
    asked = arguments.parse_args()
    report = Report(asked.json)
    for task in BUNDLES:
        measured(task, asked.problems, asked.rounds, CLOCKS[asked.clock], report)
    report.end()


if __name__ == "__main__":
    main()
