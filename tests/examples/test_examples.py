"""The examples keep to the contract of own modules, and their shipped weights do what they say."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from examples import common
from examples.mazes import model as mazes
from examples.mazes import problems as maze_problems
from examples.mazes import train as maze_training
from examples.prefix_sums import model as prefix_sums
from examples.prefix_sums import problems as prefix_problems
from examples.prefix_sums import train as prefix_training
from examples.sudoku import measure as sudoku_measuring
from examples.sudoku import model as sudoku
from examples.sudoku import problems as sudoku_problems
from examples.sudoku import train as sudoku_training

FOLDER = Path(common.__file__).parent
SEED = 31  # of problems that neither training nor measuring draws


@dataclass(frozen=True)
class Example:
    """One of them, by what they all have."""

    name: str
    factory: Callable[[], Any]
    problem: Callable[[], dict[str, Any]]
    train: Callable[[Path], None]

    def trained(self) -> Any:
        """The module with the weights that ship."""
        model = self.factory()
        common.load(model, FOLDER / self.name / "weights.safetensors")
        return model


PREFIX_SUMS = Example(
    "prefix_sums",
    prefix_sums.factory,
    lambda: next(prefix_problems.problems(9, 1, SEED)),
    lambda out: prefix_training.main(out, seed=3, updates=10),
)
MAZES = Example(
    "mazes",
    mazes.factory,
    lambda: next(maze_problems.problems(11, 1, SEED)),
    lambda out: maze_training.main(out, seed=3, updates=10, pool=300),
)
SUDOKU = Example(
    "sudoku",
    sudoku.factory,
    lambda: next(sudoku_problems.problems(1, SEED)),
    lambda out: sudoku_training.main(out, seed=3, updates=10, pool=8),
)
ALL = pytest.mark.parametrize("example", [PREFIX_SUMS, MAZES, SUDOKU], ids=lambda example: example.name)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def after(model: Any, inputs: dict[str, Tensor], steps: int) -> tuple[Any, Any, Tensor]:
    """Context, state and readout after so many steps."""
    context, state = model.embed(**inputs)
    *_, (state, shown) = common.think(model, context, state, steps)
    return context, state, shown


@ALL
@torch.inference_mode()
def test_the_module_keeps_to_the_contract(example: Example) -> None:
    model = example.trained()
    assert not model.training, "a factory gives a module that is ready to serve"
    inputs = model.example_inputs()
    (rows,) = {len(tensor) for tensor in inputs.values()}
    assert rows >= 2
    _, begun = model.embed(**inputs)
    context, state, shown = after(model, inputs, 3)
    assert {n: (t.shape, t.dtype) for n, t in state.items()} == {
        n: (t.shape, t.dtype) for n, t in begun.items()
    }
    assert model.readout_kind == "tokens"
    assert shown.shape[-1] == len(model.labels)
    assert set(getattr(model, "axes", {})) <= set(inputs)
    rules = getattr(model, "score_rules", {})
    if rules:
        scores = model.scores(context, state, begun)
        assert {name: score.shape for name, score in scores.items()} == dict.fromkeys(rules, (rows,))


@ALL
@torch.inference_mode()
def test_rows_do_not_influence_each_other(example: Example) -> None:
    model = example.trained()
    inputs = model.example_inputs()
    together = after(model, inputs, 12)[2]
    for row in range(len(together)):
        alone = after(model, {name: tensor[row : row + 1] for name, tensor in inputs.items()}, 12)[2]
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-4)


@ALL
def test_a_file_of_problems_has_the_tensors_and_labels_of_the_module(
    example: Example, tmp_path: Path
) -> None:
    model, out = example.factory(), tmp_path / "problems.jsonl"
    common.write_problems(out, [example.problem()])
    (line,) = out.read_text("utf-8").splitlines()
    problem = json.loads(line)
    tensors = {name: torch.tensor([value]) for name, value in problem["input"]["tensors"].items()}
    expected = model.example_inputs()
    assert {n: t.dtype for n, t in tensors.items()} == {n: t.dtype for n, t in expected.items()}
    shown = after(model, tensors, 1)[2]
    labels = np.array(problem["label"]).flatten()
    assert labels.size == shown[0, ..., 0].numel()
    assert set(labels.astype(str)) <= set(model.labels)


@ALL
def test_training_writes_weights_that_the_module_takes_and_the_same_for_the_same_seed(
    example: Example, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    example.train(first)
    example.train(second)
    assert first.read_bytes() == second.read_bytes()
    common.load(example.factory(), first)


def test_a_curve_is_drawn_and_told(tmp_path: Path) -> None:
    out = tmp_path / "depth.png"
    common.draw({"small": [0.0, 1.0], "large": [0.0, 0.5]}, out, "title", "problems")
    assert out.read_bytes().startswith(b"\x89PNG")
    assert common.told([0.25, 1.0], (1, 2)) == "0.250 after 1, 1.000 after 2"


def test_prefix_sums_are_right_four_times_as_far_as_trained_and_stay_so() -> None:
    bits, sums = prefix_problems.rows(40, 128, torch.Generator().manual_seed(SEED))
    model = PREFIX_SUMS.trained()
    curve = common.accuracy(model, model.embed(bits), sums, 3 * 128)
    assert curve[127:] == [1.0] * (2 * 128 + 1)
    assert curve[63] < 0.5, "news travels by one place a step, so half as many cannot do"


def test_a_mazes_way_is_a_path_between_its_ends() -> None:
    for winding in (True, False):
        drawn = maze_problems.maze(random.Random(SEED), 21, winding)
        way = np.pad(drawn.way, 1).astype(int)
        neighbours = (way[2:, 1:-1] + way[:-2, 1:-1] + way[1:-1, 2:] + way[1:-1, :-2])[drawn.way]
        ends = np.isin(drawn.pixels, (maze_problems.START, maze_problems.GOAL))
        assert ends.sum() == 2
        assert drawn.way[ends].all()
        assert sorted(neighbours) == [1, 1] + [2] * (len(neighbours) - 2)
        assert not (drawn.way & (drawn.pixels == maze_problems.WALL)).any()
        rooms = drawn.pixels[1::2, 1::2] != maze_problems.WALL
        assert rooms.all(), "every room can be reached"
        assert (drawn.pixels != maze_problems.WALL).sum() == 2 * rooms.size - 1, "and in one way only"


def test_mazes_four_times_as_wide_as_trained_are_right_on_every_pixel_and_stay_so() -> None:
    rng = random.Random(SEED)
    drawn = [maze_problems.maze(rng, 33) for _ in range(6)]
    pixels, way = map(torch.from_numpy, maze_problems.stacked(drawn))
    deepest = max(m.depth for m in drawn)
    model = MAZES.trained()
    curve = common.accuracy(model, model.embed(pixels), way, 3 * deepest)
    assert min(curve[deepest + 1 :]) == 1.0
    assert curve[deepest // 4] < 1.0, "a dead end fills by one pixel a step"


def test_a_puzzle_has_one_solution_which_keeps_the_rules() -> None:
    rng = random.Random(SEED)
    for drawn in (sudoku_problems.puzzle(rng, size) for size in (6, 9, 9, 9)):
        assert all(shown in (0, digit) for shown, digit in zip(drawn.grid, drawn.solution, strict=True))
        board = sudoku_problems.Board(drawn.size)
        for cell, digit in enumerate(drawn.solution):
            assert board.open(cell) >> (digit - 1) & 1, "no rule is broken"
            board.put(cell, digit)
        for cell, shown in enumerate(drawn.grid):
            if not shown:
                start = sudoku_problems.Board(drawn.size, drawn.grid)
                assert not sudoku_problems._other(start, cell, drawn.solution[cell], rng)


@pytest.fixture(scope="module")
def solved() -> tuple[sudoku_measuring.Course, list[sudoku_problems.Puzzle]]:
    """What the shipped network does with puzzles it has not seen, for three times its usual budget."""
    torch.set_num_threads(1)
    rng = random.Random(SEED)
    puzzles = [sudoku_problems.puzzle(rng) for _ in range(10)]
    return sudoku_measuring.course(SUDOKU.trained(), puzzles, 3 * 128), puzzles


def test_sudokus_that_singles_solve_are_solved_and_stay_so(
    solved: tuple[sudoku_measuring.Course, list[sudoku_problems.Puzzle]],
) -> None:
    seen, puzzles = solved
    easy = np.array([p.rounds is not None and p.rounds <= 6 for p in puzzles])
    assert easy.sum() >= 4
    assert seen.right[easy][:, [63, 127, 383]].all()


def test_a_sudoku_that_is_sure_is_right_and_easy_ones_are_sure_sooner(
    solved: tuple[sudoku_measuring.Course, list[sudoku_problems.Puzzle]],
) -> None:
    seen, puzzles = solved
    halted = seen.halts(sudoku.Sudoku.score_defaults["sure"])
    done = np.flatnonzero(halted)
    assert len(done) >= len(puzzles) // 2
    assert seen.right[done, halted[done] - 1].all()
    rounds = np.array([p.rounds or 99 for p in puzzles])
    assert halted[done][rounds[done] <= 3].mean() < halted[done][rounds[done] > 3].mean()


@torch.inference_mode()
def test_digits_that_break_a_rule_are_never_sure() -> None:
    model = SUDOKU.trained()
    grid = model.example_inputs()["grid"][:1].clone()
    grid[0, 0, 2] = 5  # there is a 5 in this row already
    context, state, _ = after(model, {"grid": grid}, 4)
    assert model.scores(context, state, state)["sure"].item() == 0.0
