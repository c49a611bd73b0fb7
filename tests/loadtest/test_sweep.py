"""The search for the highest rate, against servers whose limits are known."""

from collections.abc import Callable

from loadtest.analyse.sweep import Point, search


def server(
    capacity: float, slo_breaks_at: float = 1e9, client_breaks_at: float = 1e9
) -> Callable[[float], Point]:
    def measure(rate: float) -> Point:
        return Point(
            rate,
            saturated="the queue grew" if rate > capacity else None,
            missed="p99 was long" if rate > slo_breaks_at else None,
            client="busy" if rate > client_breaks_at else None,
        )

    return measure


def test_the_capacity_is_found_to_nine_per_cent() -> None:
    for capacity in (3.0, 47.0, 130.0, 999.0):
        found = search(server(capacity), 10, 5000)
        assert found.best is not None
        assert capacity / 1.1 <= found.best <= capacity
        assert found.broken is not None
        assert capacity < found.broken <= found.best * 1.1
        assert "saturated" in found.ended


def test_the_best_rate_keeps_the_slo_and_the_curve_still_reaches_saturation() -> None:
    found = search(server(500, slo_breaks_at=100), 10, 5000)
    assert found.best is not None
    assert 90 <= found.best <= 100
    assert max(point.rate for point in found.points) > 500


def test_a_server_that_never_saturates_ends_at_the_highest_rate_allowed() -> None:
    found = search(server(1e9), 10, 200)
    assert (found.best, found.broken) == (200, None)
    assert "highest rate allowed" in found.ended


def test_a_server_that_holds_nothing_has_no_best_rate() -> None:
    found = search(server(0), 10, 200)
    assert found.best is None
    assert len(found.points) <= 8


def test_saturation_is_put_down_to_the_client_where_the_client_was_the_limit() -> None:
    found = search(server(300, client_breaks_at=200), 10, 5000)
    assert "the client was the limit" in found.ended


def test_an_interruption_ends_the_search_at_once() -> None:
    asked = []

    def measure(rate: float) -> Point:
        asked.append(rate)
        return Point(rate, None, None, None, stopped=len(asked) > 1)

    found = search(measure, 10, 5000)
    assert (len(asked), found.best, found.ended) == (2, 10, "interrupted")
