"""Server settings against each other: the front, the best, and a sweep over real processes."""

import json
import sys
from pathlib import Path

import pytest

from loadtest.analyse.front import Setting, Trial, best, front, read_settings
from loadtest.errors import LoadTestError
from loadtest.serve_sweep import sweep_settings

SERVE = (sys.executable, "-m", "tests.loadtest.stub_server")


def trial(slots: str, answers: float, p99: float, kept: bool = True, depth: int = 8) -> Trial:
    return Trial(Setting((("--slots", slots),)), "closed", 4.0, depth, answers, p99, (p99, p99), kept)


def test_settings_are_every_combination_of_the_servers_flags() -> None:
    found = read_settings(["--slots", "16,64", "--quantum-ms=5"])
    assert [setting.flags for setting in found] == [
        ("--slots", "16", "--quantum-ms", "5"), ("--slots", "64", "--quantum-ms", "5"),
    ]  # fmt: skip
    assert str(found[0]) == "slots 16, quantum-ms 5"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give settings"),
        (["slots"], "neither a flag"),
        (["--slots"], "neither a flag"),
        (["--port", "1"], "chosen"),
    ],
)
def test_what_are_not_settings_is_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(LoadTestError, match=words):
        read_settings(arguments)


def test_the_front_has_what_no_other_beats_in_both_at_the_same_depth() -> None:
    trials = [
        trial("1", 10, 5), trial("2", 20, 8), trial("3", 15, 9), trial("4", 20, 8),
        trial("5", 30, 50, kept=False), trial("6", 1, 99, depth=1),
    ]  # fmt: skip
    assert [str(one.setting) for one in front(trials)] == [
        "slots 6",
        "slots 1",
        "slots 2",
        "slots 4",
        "slots 5",
    ]
    assert [str(one.setting) for one in best(trials)] == ["slots 2", "slots 6"]


def test_a_sweep_starts_a_server_for_each_setting_and_names_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One slot makes four users wait for each other; four slots do not."""
    given = {
        "depths": "4", "concurrency": "4", "duration_s": 0.8, "warmup_s": 0.1, "scrape_s": 0.0,
        "processes": 1,
    }  # fmt: skip
    assert sweep_settings(["--slots", "1,4"], given, tmp_path, SERVE) == 0
    report = json.loads((tmp_path / "settings.json").read_text())
    assert report["best"] == [{"depth": 4, "setting": {"--slots": "4"}}]
    by_slots = {entry["setting"]["--slots"]: entry for entry in report["trials"]}
    assert by_slots["4"]["answers_per_s"] > 1.5 * by_slots["1"]["answers_per_s"]
    assert (by_slots["4"]["front"], by_slots["1"]["front"]) == (True, False)
    assert (tmp_path / "front.svg").exists()
    assert (tmp_path / "setting-1" / "round-1" / "report.json").exists()
    assert "Best for depth 4: slots 4" in capsys.readouterr().out


def test_a_setting_that_the_server_refuses_is_told_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(LoadTestError, match=r"does not start: .*--nonsense"):
        sweep_settings(["--nonsense", "1"], {"depths": "4"}, tmp_path, SERVE)
    with pytest.raises(LoadTestError, match="--sweep is not for sweep-serve"):
        sweep_settings(["--slots", "1"], {"sweep": True}, tmp_path, SERVE)
