"""Tokens in a row: nearest matches, rotary positions, and neither padding nor company changes an answer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from model.network.config import RecurrentConfig
from model.network.layers import nearest_match, rotated
from model.network.perception import SequenceInputs
from model.network.recurrent import RecurrentTransformer
from training.judge.backends import torch_backend

NEAREST = RecurrentConfig(
    width=16, heads=4, feed_forward=24, layer_scale=1.0, perception="characters", attention="nearest"
)
ROTARY = RecurrentConfig(
    width=16, heads=2, feed_forward=24, layer_scale=1.0, perception="characters", rotary=True
)
CONFIGS = pytest.mark.parametrize("config", [NEAREST, ROTARY], ids=["nearest", "rotary"])


def network(config: RecurrentConfig) -> RecurrentTransformer:
    torch.manual_seed(1)
    return RecurrentTransformer(config).eval()


def problem(rows: int, length: int, seed: int = 0) -> SequenceInputs:
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 7, (rows, length), generator=draw)
    return SequenceInputs(tokens, torch.ones(rows, length, dtype=torch.bool))


def walked(logits: Tensor) -> Tensor:
    """arXiv 2110.07732, equation 5, for one side at a time: p_ij times the misses on the way, by loops."""
    drawn = torch.sigmoid(logits)
    weights, heads, tokens = torch.zeros_like(drawn), drawn.shape[1], drawn.shape[-1]
    for row in range(drawn.shape[0]):
        for head in range(heads):
            p = drawn[row, head].tolist()
            for i in range(tokens):
                ways = (range(i - 1, -1, -1), range(i + 1, tokens))
                left = 1.0
                for j in ways[0 if head < heads // 2 else 1]:
                    weights[row, head, i, j] = left * p[i][j]
                    left *= 1 - p[i][j]
    return weights


def sides(model: RecurrentTransformer, inputs: SequenceInputs) -> Tensor:
    """What perception adds to the logits, a head for each view: (B, 2, N, N)."""
    context, _ = model.embed(inputs)
    return context.attention


@pytest.mark.parametrize(("sharp", "rare"), [(1.0, False), (20.0, False), (1.0, True)])
@pytest.mark.parametrize("length", [7, 256])
@torch.inference_mode()
def test_the_nearest_match_is_the_first_one_met_on_the_way(length: int, sharp: float, rare: bool) -> None:
    """Running sums in float32 against the definition by loops in float64, some keys of one row padded."""
    model, inputs = network(NEAREST), problem(2, length)
    inputs.mask[1, length * 3 // 4 :] = False
    draw = torch.Generator().manual_seed(3)
    drawn = sharp * torch.randn(2, 2, length, length, generator=draw)
    if rare:
        drawn += torch.where(torch.rand(drawn.shape, generator=draw) < 1 / length, 4.0, -12.0)
    padded = drawn.masked_fill(~inputs.mask[:, None, None], -1e9)
    found = nearest_match(drawn + sides(model, inputs))
    torch.testing.assert_close(found.double(), walked(padded.double()), atol=1e-4, rtol=1e-3)
    far = (torch.arange(length) - torch.arange(length).unsqueeze(1)).abs() > length // 2
    assert found[:, :, far].max() > 0.9 or not rare, "how far away that is makes no difference"


@torch.inference_mode()
def test_a_match_that_is_sure_hides_all_behind_it_at_any_distance() -> None:
    model, inputs = network(NEAREST), problem(1, 40)
    logits = torch.full((1, 2, 40, 40), -50.0)
    logits[..., 5] = logits[..., 30] = 50.0
    weights = nearest_match(logits + sides(model, inputs))
    assert weights[0, 0, 39].argmax() == 30
    assert weights[0, 0, 20].argmax() == 5
    assert weights[0, 1, 0].argmax() == 5
    assert weights[0, 1, 20].argmax() == 30
    torch.testing.assert_close(weights[0, 0, 39].sum(), torch.tensor(1.0))


@torch.inference_mode()
def test_where_nothing_stands_nothing_is_taken() -> None:
    """To the left of the first token, to the right of the last real one, and on padding."""
    model, inputs = network(NEAREST), problem(1, 6)
    inputs.mask[0, 4:] = False
    weights = nearest_match(torch.zeros(1, 2, 6, 6) + sides(model, inputs))
    assert torch.isfinite(weights).all()
    assert weights[0, 0, 0].sum() == 0, "the first token has nothing on its left"
    assert weights[0, 1, 3].sum() == 0, "the last one has nothing on its right"
    assert weights[..., 4:].sum() == 0, "nobody takes from padding"
    assert weights[0, 0, 3, :4].tolist() == [0.125, 0.25, 0.5, 0]
    assert weights.sum(dim=-1).max() <= 1


@torch.inference_mode()
def test_rotary_positions_say_how_far_apart_two_tokens_are_and_nothing_else() -> None:
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(2)).expand(
        -1, -1, -1, 9, -1
    )
    products = rotated(query) @ rotated(key).transpose(-2, -1)  # (1, 1, 9, 9) of equal queries and equal keys
    for apart in range(-8, 9):
        diagonal = products[0, 0].diagonal(apart)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products[0, 0, 0].std() > 0.1, "and they do say it"
    torch.testing.assert_close(rotated(query).norm(dim=-1), query.norm(dim=-1))
    assert torch.equal(rotated(query)[0, 0, 0], query[0, 0, 0]), "the first token is not turned"


@CONFIGS
@torch.inference_mode()
def test_alone_equals_together_with_padding(config: RecurrentConfig) -> None:
    model = network(config)
    alone = [problem(1, length, seed=length) for length in (1, 3, 9, 30)]
    wide = SequenceInputs(torch.full((4, 30), 6), torch.zeros(4, 30, dtype=torch.bool))
    for row, inputs in enumerate(alone):
        length = inputs.mask.shape[1]
        wide.tokens[row, :length], wide.mask[row, :length] = inputs.tokens[0], True
    together = model(wide, 6)
    for row, inputs in enumerate(alone):
        torch.testing.assert_close(together[row : row + 1], model(inputs, 6))
    context, state = model.embed(wide)
    state = model.step(state, context, wide.mask, torch.zeros(4, dtype=torch.int64))
    assert not state[0, 1:].any(), "the state of padding stays zero"


@CONFIGS
@torch.inference_mode()
def test_the_order_of_tokens_matters(config: RecurrentConfig) -> None:
    model, inputs = (
        network(config),
        SequenceInputs(torch.tensor([[5, 0, 3, 1, 6, 2]]), torch.ones(1, 6, dtype=torch.bool)),
    )
    turned = inputs._replace(tokens=inputs.tokens[:, [0, 3, 2, 1, 4, 5]])
    assert not torch.allclose(model(turned, 3), model(inputs, 3), atol=1e-4)


@CONFIGS
@torch.inference_mode()
def test_the_first_token_is_read_and_every_token_can_be(config: RecurrentConfig) -> None:
    model, inputs = network(config), problem(2, 6)
    context, state = model.embed(inputs)
    assert context.places.argmax(dim=-1).flatten().tolist() == [0, 0]
    everywhere = model.readout_everywhere(state, context)
    assert everywhere.shape == (2, 6, 2)
    torch.testing.assert_close(everywhere[:, 0], model.readout(state, context))


@CONFIGS
@torch.inference_mode()
def test_the_served_model_says_what_the_network_says(config: RecurrentConfig) -> None:
    model, inputs = network(config), problem(3, 6)
    inputs.mask[1, 4:] = False
    for taken, (*_, logits, _) in enumerate(torch_backend(model).walk(inputs, 4), start=1):
        torch.testing.assert_close(logits, model(inputs, taken))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"perception": "graph"}, "attention=nearest and rotary need tokens in a row"),
        ({"perception": "graph", "attention": "softmax", "rotary": True}, "need tokens in a row"),
        ({"heads": 8, "width": 24, "rotary": True}, "rotary turns pairs"),
        ({"attention": "sharp"}, "must be softmax or nearest"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RecurrentConfig(**{**vars(NEAREST), **changes})  # type: ignore[arg-type]


def test_nearest_matches_need_a_head_for_either_side() -> None:
    with pytest.raises(ValueError, match="an even number of heads"):
        RecurrentTransformer(RecurrentConfig(**{**vars(NEAREST), "heads": 1}))


def test_long_rows_stay_finite() -> None:
    """p close to 0 and to 1 over 256 tokens, forwards and backwards: logarithms, not products."""
    model, inputs = network(NEAREST), problem(1, 256)
    drawn = (60 * torch.randn(1, 2, 256, 256, generator=torch.Generator().manual_seed(3))).requires_grad_()
    weights = nearest_match(drawn + sides(model, inputs).detach())
    weights.square().sum().backward()
    assert torch.isfinite(weights).all()
    assert drawn.grad is not None
    assert torch.isfinite(drawn.grad).all()
    assert math.isclose(float(weights.detach().sum(dim=-1).max()), 1.0, abs_tol=1e-3)
