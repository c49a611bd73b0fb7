"""The networks ours is compared with: a fixed number of layers, and tokens that learn when to halt."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import Tensor

from model.network.config import RecurrentConfig
from model.network.recurrent import RecurrentTransformer
from tests.model.test_recurrent import looped, problem
from training.config import TrainConfig, as_dict, configure, from_json
from training.errors import ConfigError
from training.paper.baselines import EPSILON, AdaptiveTime, AdaptiveTransformer, Baseline
from training.paper.replications import BASELINES

PLAIN = RecurrentConfig(width=16, heads=2, feed_forward=24, layer_scale=None, gate_bias=None)
LAYERS = Baseline(layers=3)
ADAPTIVE = Baseline(adaptive_time=True, ponder=0.5)


def network(baseline: Baseline) -> RecurrentTransformer:
    torch.manual_seed(1)
    return baseline.network(PLAIN).eval()


@torch.inference_mode()
def test_every_step_of_a_fixed_depth_runs_a_layer_of_its_own_and_no_more_than_there_are() -> None:
    model, inputs = network(LAYERS), problem(3, 6)
    states = [looped(model, inputs, steps)[0] for steps in range(6)]
    assert not any(torch.equal(*pair) for pair in itertools.pairwise(states[:4]))
    assert torch.equal(states[3], states[4])
    assert torch.equal(states[3], states[5])
    assert torch.equal(model(inputs, 9), model(inputs, 3))
    shared = network(Baseline())
    assert torch.equal(looped(shared, inputs, 1)[0], states[1]), "the first layer is the shared block"


def by_hand(time: AdaptiveTime, proposals: list[Tensor]) -> tuple[Tensor, Tensor, float, int]:
    """One token's state, output, ponder cost and steps, as arXiv 1603.08983 has them (section 2)."""
    probabilities: list[float] = []
    for proposal in proposals:
        probabilities.append(float(torch.sigmoid(time.halt(proposal))))
        if sum(probabilities) >= 1 - EPSILON:
            break
    steps = len(probabilities)
    remainder = 1 - sum(probabilities[:-1])
    weights = [*probabilities[:-1], remainder]
    output = sum(weight * proposal for weight, proposal in zip(weights, proposals, strict=False))
    assert isinstance(output, Tensor)
    return proposals[steps - 1], output, steps + remainder, steps


@torch.inference_mode()
def test_adaptive_time_is_the_published_rule_wherever_it_is_stopped() -> None:
    torch.manual_seed(3)
    time = AdaptiveTime(4)
    proposals = [torch.randn(2, 3, 4) * 2 for _ in range(12)]
    state = time.begin(torch.randn(2, 3, 4))
    halted = set()
    for taken, proposal in enumerate(proposals, 1):
        state = time.advance(state, proposal)
        for row, token in ((row, token) for row in range(2) for token in range(3)):
            alone = [one[row, token] for one in proposals[:taken]]
            own, output, ponder, steps = by_hand(time, alone)
            torch.testing.assert_close(time.current(state)[row, token], own)
            torch.testing.assert_close(time.output(state)[row, token], output)
            assert float(time.ponder(state)[row, token]) == pytest.approx(ponder, abs=1e-5)
            assert int(time.steps(state)[row, token]) == steps
            halted.add(steps < taken)
    assert halted == {True, False}, "some halted before they were stopped, some did not"


@torch.inference_mode()
def test_adaptive_time_leaves_padding_at_zero_and_answers_after_every_step() -> None:
    model, inputs = network(ADAPTIVE), problem(2, 5)
    inputs.mask[1, 4] = False
    for steps in (0, 1, 4):
        state, logits = looped(model, inputs, steps)
        assert not state[1, 4].any()
        assert torch.equal(logits, model(inputs, steps))
    assert torch.equal(model(inputs, 60), model(inputs, 61)), "everybody has halted"


def test_longer_thinking_costs_and_the_cost_has_a_gradient() -> None:
    model, inputs = network(ADAPTIVE), problem(2, 5)
    inputs.mask[1, 4] = False
    assert isinstance(model, AdaptiveTransformer)
    state, _ = looped(model, inputs, 3)
    cost = model.thinking_cost(state, inputs.mask)
    steps = model.time.ponder(state)
    assert float(cost.detach()) == pytest.approx(
        0.5 * float((steps[0].mean() + steps[1, :4].mean()).detach())
    )
    cost.backward()
    assert model.time.halt.bias.grad is not None
    assert float(model.time.halt.bias.grad) < 0, "halting sooner is cheaper"
    ours = network(Baseline())
    assert not ours.thinking_cost(looped(ours, inputs, 3)[0], inputs.mask).any(), "the caller counts steps"


def test_layers_and_adaptive_time_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match=r"baseline\.adaptive_time needs a shared block"):
        configure(TrainConfig(), ["baseline.layers=2", "baseline.adaptive_time=true"])


def test_a_baseline_that_cannot_be_trained_is_refused() -> None:
    for words in (["baseline.layers=4"], ["baseline.adaptive_time=true"]):
        with pytest.raises(ConfigError, match=r"needs noise=0, curriculum\.burn_in=0"):
            configure(TrainConfig(), words)
    plain = ["noise=0", "curriculum.burn_in=0", "network.halting_head=false", "baseline.layers=4"]
    with pytest.raises(ConfigError, match=r"first_steps must reach baseline\.layers"):
        configure(TrainConfig(), plain)
    assert configure(TrainConfig(), [*plain, "first_steps=4"]).baseline == Baseline(layers=4)


def test_a_baseline_from_before_it_had_a_place_of_its_own_is_the_same() -> None:
    for variant in BASELINES.variants:
        content = as_dict(variant.config)
        before = content.pop("baseline")
        content["ponder"] = before.pop("ponder")
        content["network"].update(before)
        assert from_json(json.dumps(content)) == variant.config
