"""What a calibration promises: bounds, the sequence they are tested in, the default, and the promise kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from model.calibration import Calibration, CalibrationPoint
from model.halting import CRITERIA, HaltingRule
from model.network.scores import SCORES
from training.errors import RunError
from training.judge import promise
from training.judge.bounds import lower_bound
from training.judge.calibrate import RULES, Outcomes, calibration_points, choose_default, outcomes, rules_for
from training.judge.promise import PromiseCheck, resampled, table
from training.judge.traces import Trace

LATENT = SCORES.index("latent_diff")


def test_the_lower_bound_is_clopper_pearsons() -> None:
    assert lower_bound(500, 500, 0.05) == pytest.approx(0.05 ** (1 / 500), abs=1e-6)
    assert lower_bound(0, 10, 0.05) == 0.0
    assert lower_bound(9, 10, 0.05) == pytest.approx(0.6058, abs=1e-4)  # the textbook's value
    assert lower_bound(1190, 1200, 1e-4) < 1190 / 1200


def test_every_calibrated_rule_is_one_a_request_could_name() -> None:
    assert all(math.isfinite(rule.threshold) for rule in RULES)
    assert {rule.criterion for rule in RULES} == {"none", *SCORES, "learned", "known"}
    assert {rule.criterion for rule in rules_for(SCORES)} == {"none", *SCORES}


def test_thresholds_stand_in_the_order_in_which_they_are_tested() -> None:
    """From the safest, and a criterion's all together: its sequence is tested to the first that fails."""
    names = [rule.criterion for rule in RULES]
    assert len(set(names)) == sum(a != b for a, b in zip(names, [*names[1:], ""], strict=True))
    for name in set(names):
        thresholds = [rule.threshold for rule in RULES if rule.criterion == name]
        assert thresholds == sorted(thresholds, reverse=CRITERIA[name].halts_above)
        assert len({rule.patience for rule in RULES if rule.criterion == name}) == 1


def fixed(right: Sequence[int], problems: int = 200) -> Outcomes:
    """One bucket in which so many problems come out right under each rule."""
    shares = np.array([np.arange(problems) < count for count in right])
    return Outcomes(shares, np.ones((len(right), problems), np.int64))


def test_a_threshold_guarantees_what_it_and_every_safer_one_keep() -> None:
    rules = [HaltingRule("none"), *(HaltingRule("kl", value) for value in (0.1, 0.2, 0.3))]
    points = calibration_points(rules, {1: fixed([200, 190, 200, 180]), 2: fixed([200, 200, 198, 200])})
    risk = 0.05 / 2  # two criteria; neither buckets nor thresholds divide it
    expected = [lower_bound(right, 200, risk) for right in (200, 190, 190, 180)]
    assert [point.guaranteed for point in points] == pytest.approx(expected, abs=1e-4)
    assert all(point.guaranteed <= bound for point, bound in zip(points, expected, strict=True))
    assert [point.hardest_accuracy for point in points] == [1.0, 0.95, 0.99, 0.9]


def point(criterion: str, threshold: float, steps: float, kept: float) -> CalibrationPoint:
    return CalibrationPoint(
        criterion=criterion,
        threshold=threshold,
        accuracy=kept,
        mean_steps=steps,
        hardest_accuracy=kept,
        guaranteed=kept,
    )


def test_the_default_is_the_safest_threshold_that_costs_next_to_nothing() -> None:
    points = (
        point("none", 0.0, 128, 0.99),
        point("kl", 0.1, 2, 0.5),
        point("latent_diff", 0.01, 20, 0.99),
        point("latent_diff", 0.1, 10.4, 0.99),
        point("latent_diff", 0.3, 10.1, 0.989),
        point("latent_diff", 1.0, 10, 0.988),
        point("latent_diff", 1.4, 8, 0.98),
        point("cosine", 0.1, 10.3, 0.99),
    )
    chosen = choose_default(Calibration(problems=8, max_steps=128, confidence=0.95, points=points))
    assert (chosen.criterion, chosen.threshold) == ("latent_diff", 0.1)


@pytest.mark.parametrize(("steps", "criterion"), [(9.0, "latent_diff"), (7.0, "learned")])
def test_a_learned_criterion_is_the_default_only_where_it_saves_a_good_deal(
    steps: float, criterion: str
) -> None:
    points = (
        point("none", 0.0, 128, 0.99),
        point("latent_diff", 0.1, 10, 0.99),
        point("learned", 0.9, steps, 0.99),
    )
    chosen = choose_default(Calibration(problems=8, max_steps=128, confidence=0.95, points=points))
    assert chosen.criterion == criterion


def test_the_cheapest_sound_point_answers_a_target() -> None:
    points = (point("none", 0.0, 128, 0.99), point("kl", 0.1, 2, 0.8), point("kl", 0.2, 3, 0.9))
    calibration = Calibration(problems=8, max_steps=128, confidence=0.95, points=points)
    assert calibration.cheapest(0.75) == points[1]
    assert calibration.cheapest(0.9) == points[2]
    assert calibration.cheapest(0.995) is None


GRID = (HaltingRule("none"), *(HaltingRule("latent_diff", value) for value in np.geomspace(0.02, 0.9, 40)))


def simulated(rng: np.random.Generator, problems: int, slowness: float, steps: int = 60) -> Trace:
    """Problems that come right after a random wait, whose movement falls without regard to it.

    So a threshold stops too early for some, and how many is a smooth curve: an imperfect criterion.
    """
    wait = rng.exponential(slowness, (problems, 1))
    along = np.arange(1, steps + 1)
    scores = np.zeros((problems, steps, len(SCORES)), np.float32)
    scores[:, :, LATENT] = np.exp(-along / 8) * rng.lognormal(0, 0.3, (problems, 1))
    return Trace(along >= wait, scores)


def simulated_pool(problems: int) -> dict[int, Outcomes]:
    rng = np.random.default_rng(12)
    return {
        bucket: outcomes(GRID, simulated(rng, problems, slowness)) for bucket, slowness in ((1, 3), (2, 5))
    }


def test_the_promise_is_kept_where_it_is_tight() -> None:
    """Forty thresholds around the promised accuracy: the cheapest that may be promised is close to it."""
    (kept,) = resampled(GRID, simulated_pool(6000), 500, [0.9], np.random.default_rng(3))
    assert kept.offered == kept.resamples == 100
    assert kept.broken <= 5
    assert kept.holds
    assert kept.accuracy is not None
    assert 0.9 < kept.accuracy < 0.95, "nothing is given away that need not be"
    assert kept.mean_steps is not None
    assert kept.mean_steps < 25, "of 60"


def test_the_check_finds_a_promise_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promising what was measured, without a bound, breaks about as often as it is kept."""

    def hopeful(*arguments: object) -> tuple[CalibrationPoint, ...]:
        points = calibration_points(*arguments)  # type: ignore[arg-type]
        return tuple(p.model_copy(update={"guaranteed": p.hardest_accuracy}) for p in points)

    monkeypatch.setattr(promise, "calibration_points", hopeful)
    (kept,) = resampled(GRID, simulated_pool(6000), 500, [0.9], np.random.default_rng(3))
    assert kept.broken > 20
    assert not kept.holds
    assert "| no |" in table({"targets": [{**vars(kept), "holds": kept.holds}]})


def test_what_nobody_can_keep_is_refused_and_not_promised() -> None:
    """Every threshold a little under the target: whatever is offered would be broken."""
    rng = np.random.default_rng(4)
    right = np.repeat(rng.random((1, 6000)) < 0.895, len(GRID), axis=0)
    pool = {1: Outcomes(right, np.ones(right.shape, np.int64))}
    kept, hopeless = resampled(GRID, pool, 500, [0.9, 0.99], np.random.default_rng(5))
    assert kept.offered <= 5
    assert hopeless.offered == hopeless.broken == 0
    assert (hopeless.accuracy, hopeless.mean_steps) == (None, None)


def test_a_pool_that_leaves_nothing_to_check_is_refused() -> None:
    with pytest.raises(RunError, match="a pool of 100 problems leaves none to check 100 on"):
        PromiseCheck(calibration=100, pool=100)
