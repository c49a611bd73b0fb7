"""The figures, on samples whose truth is known exactly."""

import numpy as np
import pytest

from loadtest.analyse.estimates import (
    SLICES,
    Condition,
    fit_line,
    percentile_intervals,
    resample,
    slice_of,
    spread,
    wilson,
)


def condition(steps: int, latency_ms: np.ndarray, seed: int = 0) -> Condition:
    count = len(latency_ms)
    return Condition(
        steps=np.full(count, steps),
        latency_ms=latency_ms,
        slices=slice_of(np.linspace(0, 1, count, endpoint=False), 0.0, 1.0),
        counts=resample(1, np.random.default_rng([seed, steps])),
    )


def test_percentiles_of_known_values_are_exact() -> None:
    found = spread(np.arange(1, 1002, dtype=np.float64))
    assert found is not None
    assert (found.p50, found.p90, found.p95, found.p99, found.max) == (501, 901, 951, 991, 1001)
    assert found.thin == ()


def test_percentiles_of_a_known_distribution_are_within_two_per_cent() -> None:
    values = np.random.default_rng(1).exponential(20, 40_000)
    found = spread(values)
    assert found is not None
    for name, q in {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}.items():
        assert getattr(found, name) == pytest.approx(-20 * np.log(1 - q), rel=0.02)


def test_percentiles_with_too_few_samples_beyond_them_are_called_thin() -> None:
    found = spread(np.arange(100, dtype=np.float64))
    assert found is not None
    assert found.thin == ("p95", "p99")
    assert spread([]) is None


def test_the_fit_recovers_a_and_b_exactly_without_noise() -> None:
    fit = fit_line([condition(steps, np.full(60, 12 + 3.5 * steps)) for steps in (1, 2, 4, 8, 16, 32)])
    assert fit is not None
    assert (fit.a_ms, fit.b_ms, fit.r_squared) == pytest.approx((12, 3.5, 1))
    assert fit.linear
    assert max(abs(residual.residual_ms) for residual in fit.residuals) < 1e-9


def test_the_intervals_of_the_fit_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        fit = fit_line(
            [condition(s, 12 + 3.5 * s + draw.gamma(2, 1 + s / 8, 200), seed) for s in (1, 4, 16, 32)]
        )
        assert fit is not None
        # The median of Gamma(2, k) is 1.6783·k, so the true line has a = 12 + 1.6783 and b = 3.5 + 1.6783 /
        # 8.
        held += fit.b_interval95[0] <= 3.5 + 1.6783 / 8 <= fit.b_interval95[1]
    assert held >= 50


def test_two_depths_make_a_line_that_nothing_has_tested() -> None:
    """A line goes through any two points: it says nothing about whether latency is one."""
    fit = fit_line([condition(steps, np.full(60, 12 + 3.5 * steps)) for steps in (1, 32)])
    assert fit is not None
    assert fit.b_ms == pytest.approx(3.5)
    assert (fit.linear, fit.r_squared) == (None, None)


def test_one_depth_alone_makes_no_line() -> None:
    assert fit_line([condition(4, np.full(50, 20.0))]) is None


def test_a_curve_is_not_called_a_line() -> None:
    fit = fit_line([condition(s, np.full(50, 5.0 + 0.2 * s * s)) for s in (1, 4, 16, 32)])
    assert fit is not None
    assert fit.linear is False


def test_a_noisy_deep_point_does_not_bend_the_shallow_end() -> None:
    draw = np.random.default_rng(3)
    quiet = [condition(s, 10 + 2.0 * s + draw.normal(0, 0.05, 100)) for s in (1, 2, 4, 8)]
    noisy = condition(32, 10 + 64.0 + draw.exponential(40, 100))
    fit = fit_line([*quiet, noisy])
    assert fit is not None
    assert fit.a_ms == pytest.approx(10, abs=0.5)
    assert fit.b_ms == pytest.approx(2, rel=0.05)


def test_intervals_widen_when_neighbours_share_their_weather() -> None:
    """Independent resampling would give both the same interval."""
    draw = np.random.default_rng(5)
    slices = np.repeat(np.arange(SLICES), 50)
    counts = resample(1, draw)
    alone = 100 + draw.normal(0, 10, len(slices))
    shared = 100 + draw.normal(0, 10, SLICES)[slices]
    narrow = percentile_intervals(alone, slices, counts)["p50"]
    wide = percentile_intervals(shared, slices, counts)["p50"]
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_repeats_that_differ_widen_the_interval() -> None:
    draw = np.random.default_rng(6)
    counts = resample(3, draw)
    slices = np.repeat(np.arange(3 * SLICES), 10)
    values = np.repeat([100.0, 120.0, 140.0], SLICES * 10) + draw.normal(0, 1, len(slices))
    low, high = percentile_intervals(values, slices, counts)["p50"]
    assert low < 105
    assert high > 135


def test_the_interval_of_a_share_stays_within_nought_and_one() -> None:
    low, high = wilson(10, 10)
    assert low == pytest.approx(0.7225, abs=1e-4)
    assert high == 1
    assert wilson(0, 10)[0] == 0
    assert all(wilson(n, n)[1] == 1 for n in range(1, 200))
    assert wilson(0, 0) == (0.0, 1.0)
