"""The network: its verbs agree, padding and numbering do not matter, its configuration is checked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model import halting
from model.halting import Array
from model.network.config import RecurrentConfig
from model.network.perception import GraphInputs
from model.network.recurrent import RecurrentTransformer, last
from model.network.scores import SCORES
from model.network.served import ServedModel
from training.judge.backends import torch_backend

ABLATIONS = (
    RecurrentConfig(width=16, heads=2, feed_forward=24),
    RecurrentConfig(
        width=16, heads=2, feed_forward=24, depth_embedding=3, reinjection=True, target_role=True
    ),
    RecurrentConfig(
        width=16,
        heads=2,
        feed_forward=24,
        layer_scale=None,
        gate_bias=None,
        proposal_norm=False,
        adjacency_mask=False,
    ),
)


def problem(rows: int, nodes: int, seed: int = 0) -> GraphInputs:
    draw = torch.Generator().manual_seed(seed)
    roles = torch.zeros(rows, nodes, dtype=torch.int64)
    roles[:, 0], roles[:, -1] = 1, 2
    adjacency = torch.rand(rows, nodes, nodes, generator=draw) < 0.3
    return GraphInputs(roles, adjacency, torch.ones(rows, nodes, dtype=torch.bool))


def network(config: RecurrentConfig) -> RecurrentTransformer:
    torch.manual_seed(1)
    model = RecurrentTransformer(config).eval()
    if model.block.scale is not None:
        torch.nn.init.ones_(model.block.scale)  # as if trained: at 1e-4 a step would hardly compute anything
    return model


def looped(model: RecurrentTransformer, inputs: GraphInputs, steps: int) -> tuple[Tensor, Tensor]:
    """Embed, step and step again, written out: what the plain loop is held against."""
    context, state = model.embed(inputs)
    for taken in range(steps):
        state = model.step(state, context, inputs.mask, torch.full((len(inputs.roles),), taken))
    return state, model.readout(state, context)


@pytest.mark.parametrize("config", ABLATIONS)
@torch.inference_mode()
def test_forward_is_a_repeated_step(config: RecurrentConfig) -> None:
    model, inputs = network(config), problem(3, 6)
    context, start = model.embed(inputs)
    halfway = last(model.walk(start, context, inputs.mask, 2))
    end = last(model.walk(halfway, context, inputs.mask, 3, taken=2))
    assert torch.equal(end, looped(model, inputs, 5)[0])
    for steps in (0, 1, 5):
        assert torch.equal(model(inputs, steps), looped(model, inputs, steps)[1])


@pytest.mark.parametrize("config", ABLATIONS)
@torch.inference_mode()
def test_the_served_model_says_what_the_network_says(config: RecurrentConfig) -> None:
    model, inputs = network(config), problem(3, 6)
    for taken, (*_, logits, _) in enumerate(torch_backend(model).walk(inputs, 5), start=1):
        torch.testing.assert_close(logits, model(inputs, taken))


@torch.inference_mode()
def test_padding_changes_nothing() -> None:
    model, inputs = network(ABLATIONS[0]), problem(2, 5)
    wide = GraphInputs(*(torch.zeros_like(tensor) for tensor in problem(2, 9)))
    wide.roles[:, :5], wide.adjacency[:, :5, :5], wide.mask[:, :5] = inputs
    torch.testing.assert_close(model(wide, 7), model(inputs, 7))
    assert not looped(model, wide, 3)[0][:, 5:].any(), "the state of padding stays zero"


@torch.inference_mode()
def test_the_order_of_nodes_changes_nothing() -> None:
    model, inputs = network(ABLATIONS[0]), problem(1, 6)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    shuffled = GraphInputs(
        inputs.roles[:, order], inputs.adjacency[:, order][:, :, order], inputs.mask[:, order]
    )
    torch.testing.assert_close(model(shuffled, 5), model(inputs, 5))


@torch.inference_mode()
def test_reading_everywhere_agrees_with_reading_at_the_target() -> None:
    model, inputs = network(ABLATIONS[0]), problem(3, 6)
    context, _ = model.embed(inputs)
    state, logits = looped(model, inputs, 4)
    torch.testing.assert_close(model.readout_everywhere(state, context)[:, -1], logits)


@torch.inference_mode()
def test_a_node_hears_only_its_predecessors_one_step_at_a_time() -> None:
    """On a chain a -> b -> c, what enters at a is at c after two steps and not before."""
    model = network(ABLATIONS[0])
    adjacency = torch.zeros(1, 3, 3, dtype=torch.bool)
    adjacency[0, 1, 0] = adjacency[0, 2, 1] = True
    mask = torch.ones(1, 3, dtype=torch.bool)
    near = GraphInputs(torch.tensor([[1, 0, 2]]), adjacency, mask)
    far = near._replace(roles=torch.tensor([[0, 0, 2]]))  # the same without a source at a
    for steps, equal in ((1, True), (2, False)):
        one, other = looped(model, near, steps)[0], looped(model, far, steps)[0]
        assert torch.allclose(one[0, 2], other[0, 2]) is equal


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("width", 0, "width is 0"),
        ("heads", 3, "not a multiple of heads 3"),
        ("dropout", 1.0, "dropout is 1.0"),
        ("depth_embedding", -1, "depth_embedding is -1"),
    ],
)
def test_what_cannot_be_built_is_refused(field: str, value: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RecurrentConfig(**{field: value})  # type: ignore[arg-type]


def test_the_scores_of_a_step_are_the_reference_formulas() -> None:
    """The scores in torch against model/halting.py in NumPy, over several steps and with padding."""
    model = network(ABLATIONS[0])
    inputs = problem(4, 7, seed=2)
    inputs.mask[1, 5:6] = False
    backend = torch_backend(model)
    before = [tensor.double().numpy() for tensor in backend.embed(inputs)[backend.context :]]
    for *following, logits, scores in backend.walk(inputs, 4):
        state, readout, delta, stability = before
        before = [tensor.double().numpy() for tensor in following]
        expected = reference(logits.double().numpy(), readout, before[0], state, delta, stability, inputs)
        for name, column in expected.items():
            np.testing.assert_allclose(scores[:, SCORES.index(name)], column, atol=2e-6, err_msg=name)


def test_a_halting_head_adds_one_score_and_changes_nothing_else() -> None:
    torch.manual_seed(3)
    plain = RecurrentTransformer(RecurrentConfig(width=16, heads=2, feed_forward=16)).eval()
    torch.manual_seed(3)
    headed = RecurrentTransformer(
        RecurrentConfig(width=16, heads=2, feed_forward=16, halting_head=True)
    ).eval()
    inputs = problem(3, 6, seed=1)
    depth = torch.zeros(3, dtype=torch.int64)
    one, other = ServedModel(plain), ServedModel(headed)
    assert other.scores == (*one.scores, "learned")
    with torch.inference_mode():
        ours = one.step(*one.embed(*inputs), depth)
        theirs = other.step(*other.embed(*inputs), depth)
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        assert torch.equal(a, b)
    assert torch.equal(ours[-1], theirs[-1][:, :-1])
    assert ((theirs[-1][:, -1] > 0) & (theirs[-1][:, -1] < 1)).all()


def test_the_halting_head_does_not_see_padding() -> None:
    torch.manual_seed(3)
    model = RecurrentTransformer(RecurrentConfig(width=16, heads=2, feed_forward=16, halting_head=True))
    served = ServedModel(model.eval())
    inputs = problem(2, 6, seed=1)
    padded = GraphInputs(
        torch.nn.functional.pad(inputs.roles, (0, 3)),
        torch.nn.functional.pad(inputs.adjacency, (0, 3, 0, 3)),
        torch.nn.functional.pad(inputs.mask, (0, 3)),
    )
    depth = torch.zeros(2, dtype=torch.int64)
    with torch.inference_mode():
        short = served.step(*served.embed(*inputs), depth)[-1]
        long = served.step(*served.embed(*padded), depth)[-1]
    assert torch.allclose(short, long, atol=1e-5)


def reference(
    logits: Array,
    before: Array,
    state: Array,
    previous: Array,
    delta: Array,
    stable: Array,
    inputs: GraphInputs,
) -> dict[str, Array]:
    mask = inputs.mask.numpy()
    return {
        "confidence": halting.confidence(logits),
        "entropy": halting.entropy(logits),
        "entropy_diff": halting.entropy_diff(logits, before),
        "kl": halting.kl(logits, before),
        "latent_diff": halting.latent_diff(state, previous, mask),
        "cosine": halting.cosine(state, previous, mask),
        "acceleration": halting.acceleration(state, state - previous, delta, mask),
        "argmax_stability": halting.argmax_stability(logits, before, stable),
    }
