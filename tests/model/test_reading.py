"""Networks that read: routes come from the input, only values travel, and padding changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.codecs.words import ORIGIN, WORDS
from model.network.config import RecurrentConfig
from model.network.perception import Inputs, SequenceInputs, WordInputs
from model.network.reading import Heard, LocalRoutes, NearestRoutes, Routes
from model.network.recurrent import RecurrentTransformer, last
from training.judge.backends import torch_backend

CHARACTERS = RecurrentConfig(
    width=16,
    heads=4,
    feed_forward=24,
    classes=3,
    layer_scale=1.0,
    gate_bias=1.0,
    echo=True,
    attention="nearest",
    perception="characters",
    reading=16,
    routing="input",
    counters=3,
)
SENTENCES = replace(
    CHARACTERS, attention="softmax", perception="sentences", counters=0, same_heads=2, span=3, window=2
)
KINDS = {
    f"{config.perception} routed by the {routing}": replace(config, routing=routing)
    for config in (CHARACTERS, SENTENCES)
    for routing in ("input", "state")
}
EVERY = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
FIXED = pytest.mark.parametrize("config", [CHARACTERS, SENTENCES], ids=["characters", "sentences"])


def network(config: RecurrentConfig) -> RecurrentTransformer:
    torch.manual_seed(1)
    return RecurrentTransformer(config).eval()


def problem(config: RecurrentConfig, rows: int, length: int, seed: int = 0) -> SequenceInputs | WordInputs:
    """Any tokens at all; of words the last is where counting begins."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, length, dtype=torch.bool)
    if config.perception == "characters":
        return SequenceInputs(torch.randint(0, 7, (rows, length), generator=draw), mask)
    tokens = torch.randint(0, len(WORDS), (rows, length), generator=draw)
    placed = torch.zeros_like(tokens)
    placed[:, -1] = ORIGIN
    return WordInputs(tokens, placed, mask)


def heard_of(model: RecurrentTransformer, inputs: Inputs) -> Heard:
    kinds, _ = model.perception.see(inputs, torch.float32)
    assert model.reader is not None
    heard: Heard = model.reader(kinds, inputs.mask).heard
    return heard


def recorded(
    model: RecurrentTransformer, inputs: Inputs, disturb: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """The routes that the block carries values along, step by step."""
    seen: list[Tensor] = []
    hook = model.block.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    context, state = model.embed(inputs)
    last(model.walk(state, context, inputs.mask, 4, disturb=disturb))
    hook.remove()
    return seen


@EVERY
@torch.inference_mode()
def test_alone_equals_together_with_padding(config: RecurrentConfig) -> None:
    model = network(config)
    alone = [problem(config, 1, length, seed=length) for length in (1, 3, 9, 30)]
    wide = type(alone[0])(*(torch.nn.functional.pad(part, (0, 30 - 1)).repeat(4, 1) for part in alone[0]))
    wide.tokens[:] = 5  # what stands on padding is nobody's concern
    if isinstance(wide, WordInputs):
        wide.placed[:] = 7
    wide.mask[:] = False
    for row, inputs in enumerate(alone):
        for part, own in zip(wide, inputs, strict=True):
            part[row, : own.shape[1]] = own[0]
    together = model(wide, 6)
    assert together.std() > 1e-3, "the answers are not all the same"
    for row, inputs in enumerate(alone):
        torch.testing.assert_close(together[row : row + 1], model(inputs, 6), atol=2e-5, rtol=1e-4)
    context, state = model.embed(wide)
    assert not state[0, 1:].any()
    after = model.step(state, context, wide.mask, torch.zeros(4, dtype=torch.int64))
    assert not after[0, 1:].any(), "the state of padding stays zero"


@EVERY
@torch.inference_mode()
def test_the_order_of_tokens_matters(config: RecurrentConfig) -> None:
    model, inputs = network(config), problem(config, 1, 12)
    turned = inputs._replace(tokens=inputs.tokens[:, [0, 3, 2, 1, 4, 5, 7, 6, 8, 10, 9, 11]])
    assert not torch.allclose(model(turned, 3), model(inputs, 3), atol=1e-4)


@EVERY
@torch.inference_mode()
def test_the_served_model_says_what_the_network_says(config: RecurrentConfig) -> None:
    model, inputs = network(config), problem(config, 3, 9)
    inputs.mask[1, 6:] = False
    for taken, (*_, logits, _) in enumerate(torch_backend(model).walk(inputs, 4), start=1):
        torch.testing.assert_close(logits, model(inputs, taken))


@FIXED
@torch.inference_mode()
def test_routes_that_the_input_decides_on_are_the_same_at_every_step(config: RecurrentConfig) -> None:
    model, inputs = network(config), problem(config, 2, 12)
    told: list[None] = []
    model.routes.register_forward_hook(lambda *_: told.append(None))
    seen = recorded(model, inputs, lambda state: state + torch.randn_like(state))
    assert len(told) == 1, "they are told once a problem"
    context, _ = model.embed(inputs)
    assert context.routes is not None
    assert context.counts is None
    assert len(seen) == 4
    assert all(torch.equal(routes, context.routes) for routes in seen)


@FIXED
@torch.inference_mode()
def test_routes_that_the_state_decides_on_move_with_it(config: RecurrentConfig) -> None:
    model, inputs = network(replace(config, routing="state")), problem(config, 2, 12)
    assert model.embed(inputs)[0].routes is None
    one, other = (recorded(model, inputs, disturb) for disturb in (torch.clone, torch.zeros_like))
    assert len(one) == len(other) == 4
    assert not torch.allclose(one[0], other[0], atol=1e-3), "of another state in the same step"
    assert not torch.allclose(one[0], one[3], atol=1e-3), "of another step"


@EVERY
@torch.inference_mode()
def test_of_each_query_at_most_everything_is_taken_and_nothing_from_padding_or_itself(
    config: RecurrentConfig,
) -> None:
    model, inputs = network(config), problem(config, 2, 14)
    inputs.mask[1, 9:] = False
    for routes in recorded(model, inputs, lambda state: 3 * torch.randn_like(state)):
        assert routes.shape[1:] == (config.same_heads + config.heads, 14, 14)
        assert routes.min() >= 0
        assert 0.1 < routes.sum(dim=-1).max() <= 1 + 1e-5
        assert not routes.diagonal(dim1=-2, dim2=-1).any(), "nobody takes from itself"
        strands = len(routes) // 2  # of each row, where the state decides
        assert not routes[strands:, :, :, 9:].any(), "a padded key gets nothing"
        assert routes[:strands, :, :, 9:].any()


@torch.inference_mode()
def test_half_of_the_heads_that_look_for_the_nearest_look_to_the_left_and_half_to_the_right() -> None:
    torch.manual_seed(1)
    x, counts = torch.randn(1, 6, 16), torch.randn(1, 6, 3)
    routes = NearestRoutes(16, 4, 3)(Heard(x, x, counts), torch.ones(1, 6, dtype=torch.bool))[0]
    assert not routes[:2].triu().any()
    assert not routes[2:].tril().any()
    assert routes[:2].tril(-1).any(dim=-1)[:, 1:].all()
    assert routes[2:].triu(1).any(dim=-1)[:, :-1].all()


@torch.inference_mode()
def test_a_head_that_looks_for_a_difference_of_counters_finds_it_at_any_distance() -> None:
    """Content tells nothing here: the first token to the right with the same count is taken."""
    routes = NearestRoutes(4, 2, 1)
    for part in (routes.query, routes.key, routes.query_at, routes.key_at):
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    routes.bias.fill_(10.0)
    routes.strictness.fill_(40.0)
    levels = torch.tensor([1.0, 2, 3, 3, 2, 3, 2, 1]).reshape(1, 8, 1)
    x = torch.randn(1, 8, 4)
    found = routes(Heard(x, x, levels), torch.ones(1, 8, dtype=torch.bool))[0, 1].round().nonzero().tolist()
    assert found == [[0, 7], [1, 4], [2, 3], [3, 5], [4, 6]]


@torch.inference_mode()
def test_a_head_for_the_near_reaches_as_far_as_its_span() -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 9, 16)
    routes = LocalRoutes(16, 2, 3)(Heard(x, x, x[..., :0]), torch.ones(1, 9, dtype=torch.bool))[0]
    place = torch.arange(9)
    far = (place.unsqueeze(0) - place.unsqueeze(1)).abs()
    assert torch.equal(routes > 0, ((far > 0) & (far <= 3)).expand(2, -1, -1))


@torch.inference_mode()
def test_a_head_for_the_same_takes_from_its_own_kind_wherever_that_stands() -> None:
    model = network(SENTENCES)
    routes = model.routes
    assert isinstance(routes, Routes)
    assert routes.same is not None
    inputs = problem(SENTENCES, 1, 40)
    inputs.tokens[0] = torch.arange(40) % (len(WORDS) - 6) + 6
    inputs.tokens[0, 35] = inputs.tokens[0, 2]
    inputs.placed.zero_()
    routes.same.sharpness.fill_(8.0)
    weights = routes.same(heard_of(model, inputs), inputs.mask)[0]
    assert weights[:, 2].argmax(dim=-1).tolist() == [35, 35]
    assert weights[:, 35].argmax(dim=-1).tolist() == [2, 2]
    assert (weights[:, 2, 35] > 0.9).all()


@torch.inference_mode()
def test_a_counter_is_the_sum_of_the_moves_so_far() -> None:
    model, inputs = network(CHARACTERS), problem(CHARACTERS, 2, 12)
    inputs.mask[1, 7:] = False
    assert model.reader is not None
    assert model.reader.counters is not None
    moves = model.reader.counters(model.reader.embedding(inputs.tokens))
    assert moves.abs().max() < 1
    assert moves.std() > 0.05, "it moves"
    counts = heard_of(model, inputs).counts
    assert counts.shape == (2, 12, 3)
    total = torch.zeros(2, 3)
    for place in range(12):
        total += moves[:, place] * inputs.mask[:, place : place + 1]
        torch.testing.assert_close(counts[:, place], total)
    assert torch.equal(counts[1, 7:], counts[1, 6:7].expand(5, -1)), "padding moves nothing"


@torch.inference_mode()
def test_another_token_moves_the_counters_from_where_it_stands_and_nothing_before() -> None:
    model, inputs = network(CHARACTERS), problem(CHARACTERS, 1, 12)
    other = inputs._replace(tokens=inputs.tokens.clone())
    other.tokens[0, 5] = (inputs.tokens[0, 5] + 1) % 7
    one, another = heard_of(model, inputs).counts[0], heard_of(model, other).counts[0]
    assert torch.equal(one[:5], another[:5])
    moved = another[5:] - one[5:]
    torch.testing.assert_close(moved, moved[:1].expand_as(moved), atol=1e-5, rtol=0)
    assert (moved[0].abs() > 1e-3).any()


@torch.inference_mode()
def test_where_the_counters_stand_is_context_where_the_state_decides() -> None:
    by_state = replace(CHARACTERS, routing="state")
    model, inputs = network(by_state), problem(CHARACTERS, 2, 8)
    context, _ = model.embed(inputs)
    assert context.counts is not None
    assert torch.equal(context.counts, heard_of(model, inputs).counts)
    assert model.context == ("places", "counts", "injection")
    assert network(CHARACTERS).context == ("places", "routes", "injection")


def test_counters_that_move_are_unrest() -> None:
    model = network(CHARACTERS)
    assert model.reader is not None
    assert model.reader.counters is not None
    assert model.reader.unrest() > 0.01
    torch.nn.init.zeros_(model.reader.counters.moves.weight)
    assert model.reader.unrest() == 0, "down is as likely as up"
    plain = network(SENTENCES).reader
    assert plain is not None
    assert plain.unrest() == 0


@torch.inference_mode()
def test_an_echo_shows_a_token_what_the_head_says_of_it() -> None:
    """Each question of each strand by itself, as an embedding of the classes by their probabilities."""
    model, inputs = network(SENTENCES), problem(SENTENCES, 1, 9)
    context, state = model.embed(inputs)
    shown: list[Tensor] = []
    model.block.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
    model.step(state, context, inputs.mask, torch.zeros(1, dtype=torch.int64))
    assert context.injection is not None
    for hand in range(3):
        part = slice(16 * hand, 16 * hand + 16)
        said = model.head(model.head_norm(state[0, :, part]))
        where, equal = torch.softmax(said[:, :13], dim=-1), torch.softmax(said[:, 13:], dim=-1)
        echo = torch.cat((where, equal), dim=-1) @ model.said.weight
        torch.testing.assert_close(shown[0][hand], (state + context.injection)[0, :, part] + echo)


def test_names_begin_apart_and_a_place_that_is_not_given_adds_nothing() -> None:
    model = network(replace(SENTENCES, reading=40, width=40))
    assert model.reader is not None
    table = model.reader.embedding.weight
    names = torch.nn.functional.normalize(table[model.perception.distinct])
    torch.testing.assert_close(names @ names.T, torch.eye(len(names)), atol=1e-5, rtol=0)
    assert not table[model.perception.nothing].any()


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        (CHARACTERS, {"reading": -1}, "reading, window, counters and same_heads must be 0 or more"),
        (CHARACTERS, {"window": -1}, "reading, window, counters and same_heads must be 0 or more"),
        (CHARACTERS, {"counters": -1}, "reading, window, counters and same_heads must be 0 or more"),
        (SENTENCES, {"same_heads": -1}, "reading, window, counters and same_heads must be 0 or more"),
        (SENTENCES, {"span": 0}, "span 1 or more"),
        (SENTENCES, {"routing": "chance"}, "routing is 'chance', but must be state or input"),
        (
            CHARACTERS,
            {"perception": "graph", "attention": "softmax"},
            "reading needs tokens in a row: perception=characters, words or sentences",
        ),
        (CHARACTERS, {"reading": 0, "counters": 0}, "routing=input, counters and same_heads need"),
        (CHARACTERS, {"reading": 0, "routing": "state"}, "routing=input, counters and same_heads need"),
        (
            SENTENCES,
            {"reading": 0, "routing": "state", "echo": False},
            "routing=input, counters and same_heads need",
        ),
        (CHARACTERS, {"reading": 0, "routing": "state", "counters": 0}, "echo needs a head that speaks"),
        (CHARACTERS, {"rotary": True}, "reading goes with no rotary positions or depth embedding"),
        (CHARACTERS, {"depth_embedding": 3}, "reading goes with no rotary"),
        (CHARACTERS, {"routing": "state", "reading": 8}, "routing=state needs .* reading=width"),
        (CHARACTERS, {"keep_given": True}, "keep_given needs tokens that are given"),
        (SENTENCES, {"keep_given": True}, "keep_given needs tokens that are given"),
        (SENTENCES, {"attention": "nearest", "heads": 1}, "attention=nearest needs an even number of heads"),
        (CHARACTERS, {"heads": 1}, "attention=nearest needs an even number of heads"),
    ],
)
def test_what_cannot_be_built_is_refused(
    base: RecurrentConfig, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        replace(base, **changes)  # type: ignore[arg-type]


def test_sentences_need_a_network_that_reads_and_the_class_unknown() -> None:
    plain = replace(SENTENCES, reading=0, routing="state", same_heads=0, echo=False)
    for config in (plain, replace(SENTENCES, classes=2)):
        with pytest.raises(ValueError, match="perception=sentences needs a network that reads, and three"):
            RecurrentTransformer(config)
