"""What a network sees of a family, what is given of it, and what the head echoes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.codecs import CodecLimits
from model.codecs.generations import GENERATIONS
from model.codecs.text import START, TextCodec
from model.network.config import RecurrentConfig
from model.network.perception import FamilyInputs, hands
from model.network.recurrent import RecurrentTransformer
from model.network.served import ServedModel
from training.judge.backends import torch_backend

CONFIG = RecurrentConfig(
    width=16, heads=2, feed_forward=24, layer_scale=1.0, perception="family", keep_given=True
)
FACTS = [
    "Ann is the parent of Bob",
    "Cid is the child of Bob",
    "Bob is the child of Dan",
    "Eve is the child of Fay",
]
PROBLEM = {"facts": FACTS, "query": "Dan is the grandparent of Cid"}


def inputs() -> FamilyInputs:
    coded = TextCodec(CodecLimits()).encode(PROBLEM, "input")
    return FamilyInputs(*(torch.from_numpy(coded[name])[None] for name in FamilyInputs._fields))


def network(config: RecurrentConfig = CONFIG) -> RecurrentTransformer:
    torch.manual_seed(1)
    return RecurrentTransformer(config).eval()


@torch.inference_mode()
def test_the_served_model_says_what_the_network_says() -> None:
    model, problem = network(), inputs()
    assert ServedModel(model).context == ("attention", "places", "wanted", "given", "known", "real")
    for taken, (*_, logits, _) in enumerate(torch_backend(model).walk(problem, 4), start=1):
        torch.testing.assert_close(logits, model(problem, taken))


@torch.inference_mode()
def test_the_answer_is_the_probability_of_the_generation_asked_about() -> None:
    model, problem = network(), inputs()
    context, state = model.embed(problem)
    everyone = torch.softmax(model.readout_everywhere(state, context), dim=-1)
    asked = everyone[0, int(problem.asked.argmax()), START + 2]
    answer = torch.softmax(model.readout(state, context), dim=-1)
    torch.testing.assert_close(answer[0], torch.stack((1 - asked, asked)))
    assert everyone.shape == (1, 6, GENERATIONS + 1)


def test_the_hands_of_the_clock_tell_all_generations_apart() -> None:
    shown = [tuple(places) for places in hands(torch.arange(GENERATIONS + 1)).tolist()]
    assert len(set(shown)) == GENERATIONS + 1
    assert shown[0] == (0, 0, 0)


@torch.inference_mode()
def test_a_sure_answer_is_finite() -> None:
    model, problem = network(), inputs()
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias[hands(torch.tensor(START + 2))] = 500.0
    context, state = model.embed(problem)
    logits = model.readout(state, context)
    assert torch.isfinite(logits).all()
    assert logits.argmax() == 1


@torch.inference_mode()
def test_padding_and_order_change_nothing() -> None:
    model, problem = network(), inputs()
    wide = FamilyInputs(*(torch.nn.functional.pad(part, (0, 3)) for part in problem))
    wide = wide._replace(parents=torch.nn.functional.pad(wide.parents, (0, 0, 0, 3)))
    torch.testing.assert_close(model(wide, 5), model(problem, 5))
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    shuffled = FamilyInputs(
        problem.placed[:, order],
        problem.asked[:, order],
        problem.parents[:, order][:, :, order],
        problem.mask[:, order],
    )
    torch.testing.assert_close(model(shuffled, 5), model(problem, 5))


@torch.inference_mode()
def test_who_is_given_stays_and_word_travels_one_link_a_step() -> None:
    model, problem = network(), inputs()
    context, start = model.embed(problem)
    first = int(problem.placed.argmax())  # Cid, then Bob, then Ann and Dan; Eve and Fay never
    assert context.known is not None
    assert context.known[0, :, 0].nonzero().flatten().tolist() == [first]
    heard = []
    told = model.walk(start, context, problem.mask, 3)
    nothing, blank = model.embed(problem._replace(placed=torch.zeros_like(problem.placed)))
    assert nothing.known is not None
    assert not nothing.known.any()
    untold = model.walk(blank, nothing, problem.mask, 3)
    for state, other in itertools.islice(zip(told, untold, strict=True), 1, None):
        assert torch.equal(state[0, first], start[0, first])
        different = (state - other).abs().amax(dim=-1)[0] > 1e-6
        heard.append(np.flatnonzero(different.numpy()).tolist())
    assert heard == [[1, 2], [0, 1, 2, 3], [0, 1, 2, 3]]


@torch.inference_mode()
def test_the_hands_of_the_clock_do_not_disturb_each_other() -> None:
    """Each is a strand of the state: what one of them says cannot change where the others go."""
    model, problem = network(replace(CONFIG, echo=True)), inputs()
    context, state = model.embed(problem)
    other = state.clone()
    other[..., : CONFIG.width] += torch.randn(CONFIG.width)
    depth = torch.zeros(1, dtype=torch.int64)
    after, changed = (model.step(each, context, problem.mask, depth) for each in (state, other))
    assert context.known is not None
    unknown = ~context.known[0, :, 0]
    assert torch.equal(after[..., CONFIG.width :], changed[..., CONFIG.width :])
    assert not torch.isclose(after, changed)[0, unknown, : CONFIG.width].any(dim=-1).all()


@torch.inference_mode()
def test_an_echo_shows_a_token_what_the_head_says_of_it() -> None:
    """The block sees the state plus the embedding of what it stands for, each kind as likely as it is."""
    model, problem = network(replace(CONFIG, echo=True)), inputs()
    context, state = model.embed(problem)
    shown: list[torch.Tensor] = []
    model.block.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    model.step(state, context, problem.mask, torch.zeros(1, dtype=torch.int64))
    strands = state.reshape(1, -1, 3, CONFIG.width)[0]
    for hand in range(3):
        said = torch.softmax(model.head(model.head_norm(strands[:, hand])), dim=-1)
        expected = strands[:, hand] + model.input_norm(said @ model.roles.weight)
        torch.testing.assert_close(shown[0][hand], expected)


def test_a_family_needs_a_head_for_each_direction_and_two_classes() -> None:
    for wrong in ({"heads": 1}, {"classes": 3}):
        config = RecurrentConfig(**{"width": 16, "heads": 2, "perception": "family", **wrong})
        with pytest.raises(ValueError, match="an even number of heads and two classes"):
            RecurrentTransformer(config)
    with pytest.raises(ValueError, match="echo needs a head"):
        RecurrentConfig(echo=True)
    with pytest.raises(ValueError, match="must be one of graph, family"):
        RecurrentConfig(perception="smell")
