"""Two reports held against each other: nothing is faster that chance may have made so."""

from typing import Any

from loadtest.analyse.comparison import compare


def report(*p50: float, interval: float = 0.01) -> dict[str, Any]:
    """A report of one condition whose repeats had these medians."""
    middle = sorted(p50)[len(p50) // 2]
    figures = ("p50", "p90", "p95", "p99")
    return {
        "summaries": [
            {
                "phase": "load", "loop": "closed", "level": 4.0, "depth_from": 8, "depth_to": 8,
                "latency_ms": {
                    **dict.fromkeys(figures, middle),
                    "thin": ["p95", "p99"],
                    "interval95": {f: [middle * (1 - interval), middle * (1 + interval)] for f in figures},
                },
                "repeat_ms": {figure: list(p50) for figure in figures},
            }
        ]
    }  # fmt: skip


def verdicts(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [line.verdict for line in compare(a, b)]


def test_repeats_that_differ_much_make_much_noise() -> None:
    assert verdicts(report(10, 10.1, 10.2), report(8, 8.1, 8.2)) == ["faster", "faster"]
    assert verdicts(report(8, 8.1, 8.2), report(10, 10.1, 10.2)) == ["slower", "slower"]
    assert verdicts(report(8, 10, 13), report(8, 8.1, 8.2)) == ["within the noise"] * 2


def test_without_repeats_nothing_is_called_faster_however_far_apart() -> None:
    """Within one run the medians look certain; a second run of the same thing may be anywhere."""
    assert verdicts(report(10, 10), report(2, 2)) == ["too few repeats"] * 2
    assert verdicts(report(10), report(2, 2, 2)) == ["too few repeats"] * 2


def test_thin_percentiles_and_other_conditions_are_left_out() -> None:
    first, second = report(10, 10, 10), report(10, 10, 10)
    assert [line.figure for line in compare(first, second)] == ["p50 ms", "p90 ms"]
    second["summaries"][0]["level"] = 8.0
    assert list(compare(first, second)) == []
