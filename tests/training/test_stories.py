"""Stories: what is taught of every word is true, by an independent count, and comes when it can be known."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from model.codecs import CodecLimits
from model.codecs.generations import GENERATIONS, Kin, later
from model.codecs.sentences import REACH, relation_of
from model.codecs.words import ASK, BLANK, LENGTH, NAME, NAMES, ORIGIN, RELATION, STOP, WORDS, WordsCodec
from model.network.perception import HANDS, WordInputs, hands
from training.task import NEVER, Batch, Schedule
from training.tasks.text.stories import (
    COMMON,
    EQUAL,
    GENERATION,
    HEARD,
    NOTHING,
    OTHER,
    RARE,
    UNKNOWN,
    VERDICT,
    Fact,
    Story,
    Taste,
    logits_of,
    sampled,
    story,
    told,
    unusual_stories,
)
from training.tasks.text.task import TextTask

PLAIN = Taste(quiet=0, cut=0)
TASK = TextTask(interface="sentences")


def stories(count: int, taste: Taste = PLAIN, cut: bool = False, seed: int = 1) -> Iterator[Story]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        links, strangers = int(rng.integers(1, 13)), int(rng.integers(0, 15))
        zigzag, branches = bool(rng.random() < 0.5), int(rng.integers(0, 4))
        yield story(rng, taste, links, strangers, zigzag, branches, cut)


def kin_of(facts: list[Fact]) -> Kin:
    """By a union-find that training does not use; of facts that contradict each other the first counts."""
    kin = Kin(NAMES)
    for a, above, b in facts:
        if kin.between(a, b) is None:
            kin.join(a, b, above)
    return kin


def agree(facts: list[Fact]) -> bool:
    """Whether everybody can stand in one generation."""
    kin = kin_of(facts)
    return all(kin.between(a, b) == above for a, above, b in facts)


def away(facts: list[Fact], first: int) -> dict[int, int]:
    """How many facts away everybody is whom facts connect with `first`."""
    found, queue = {first: 0}, deque([first])
    while queue:
        here = queue.popleft()
        for a, _, b in facts:
            for one, other in ((a, b), (b, a)):
                if one == here and other not in found:
                    found[other] = found[here] + 1
                    queue.append(other)
    return found


def read(tokens: list[int]) -> tuple[list[Fact], Fact]:
    """Facts and query of a row of words."""
    sentences = [tokens[start : start + LENGTH] for start in range(1, len(tokens), LENGTH)]
    *facts, query = [
        (one - NAME, word - RELATION, other - NAME) for one, _, _, word, _, other, _ in sentences
    ]
    assert [sentence[-1] for sentence in sentences] == [STOP] * len(facts) + [ASK]
    return facts, query


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_whoever_can_be_related_stands_where_the_facts_say(cut: bool) -> None:
    for each in stories(400, cut=cut):
        kin, near = kin_of(each.facts), away(each.facts, each.first)
        assert set(each.above) == set(near), "who is related is connected"
        for person, above in each.above.items():
            assert kin.between(person, each.first) == above
            assert each.links[person] == near[person]
        people = {person for a, _, b in each.facts for person in (a, b)} | {each.first, each.last}
        assert people <= set(range(NAMES))


def test_a_cut_leaves_the_question_open_and_nothing_else_does() -> None:
    for each in stories(300):
        assert kin_of(each.facts).between(each.last, each.first) is not None
    for each in stories(300, cut=True):
        assert kin_of(each.facts).between(each.last, each.first) is None
        assert each.last not in each.above


def test_facts_about_the_question_agree_with_each_other() -> None:
    for each in stories(400):
        assert agree([fact for fact in each.facts if fact[0] in each.above])


def test_every_fact_agrees_with_all_others() -> None:
    for each in stories(400):
        assert agree(each.facts)


def test_half_of_the_questions_are_true_and_the_others_have_a_name() -> None:
    right = []
    for each in stories(1500):
        between = kin_of(each.facts).between(each.last, each.first)
        right.append(between == each.asked)
        assert abs(each.asked) <= REACH
    assert 0.47 < np.mean(right) < 0.56


def test_strangers_are_not_related_to_the_question_and_learn_the_rare_words() -> None:
    taste = Taste(lesson=1.0)
    words = set()
    for each in stories(200, taste):
        for a, above, b in each.facts:
            assert (a in each.above) == (b in each.above)
            if a not in each.above:
                words.add(above)
    assert words == set(range(-REACH, REACH + 1))


def test_the_codec_makes_of_a_told_story_what_the_generator_makes() -> None:
    """The names aside, which are drawn anew: the codec numbers them in order of appearance."""
    codec, seen = WordsCodec(CodecLimits(), counts=True), 0
    for each in stories(1500, Taste(lesson=0)):
        if any(abs(above) != 1 for _, above, _ in each.facts) or not agree(each.facts):
            continue  # what the codec refuses
        seen += 1
        facts = [f"P{a} is the {relation_of(above)} of P{b}" for a, above, b in each.facts]
        query = f"P{each.last} is the {relation_of(each.asked)} of P{each.first}"
        coded = codec.encode({"facts": ". ".join(facts) + ".", "query": f"{query}?"}, "input")
        ours = told([each])
        assert coded["placed"].tolist() == ours.placed[0].tolist()
        assert coded["mask"].tolist() == ours.mask[0].tolist()
        pairs = set(zip(ours.tokens[0].tolist(), coded["tokens"].tolist(), strict=True))
        assert len({one for one, _ in pairs}) == len({other for _, other in pairs}) == len(pairs)
        assert all(one == other or one >= NAME <= other for one, other in pairs)
    assert seen > 50


def test_what_is_graded_of_a_word_is_true_and_due_when_it_can_have_been_heard() -> None:
    rng = np.random.default_rng(5)
    for number in range(40):
        taste = Taste(quiet=0, cut=float(number % 4 == 3))
        batch = sampled(rng, taste, 6, int(rng.integers(1, 8)))
        assert batch.schedule is not None
        assert batch.weights.eq(1).all()
        assert (batch.earlier is None) == (number % 4 == 3), "a cut is no batch to come late"
        for row in range(6):
            check(batch, batch.schedule, row)


def check(batch: Batch, plan: Schedule, row: int) -> None:
    """Every question of one row against a union-find and a search over its words."""
    assert isinstance(batch.inputs, WordInputs)
    tokens, begin = batch.inputs.tokens[row].tolist(), int(batch.inputs.placed[row, -1])
    assert not batch.inputs.placed[row, :-1].any()
    assert 1 <= begin <= GENERATIONS
    facts, (last, asked, first) = read(tokens)
    kin, near = kin_of(facts), away(facts, first)
    size, verdict = 3 * len(tokens), slice(3 * len(tokens), None)

    def shown(generation: int) -> list[int]:
        places: list[int] = hands(torch.tensor(generation)).tolist()
        return places

    for place, token in enumerate(tokens):
        mine = slice(3 * place, 3 * place + 3)
        (kind,), earliest, due = (
            set(plan.kind[row, mine].tolist()),
            plan.earliest[row, mine],
            plan.due[row, mine],
        )
        labels = batch.labels[row, mine].tolist()
        if token >= NAME or token == ASK:
            person = token - NAME if token >= NAME else last
            assert kind == (GENERATION if token >= NAME else HEARD)
            between = kin.between(person, first)
            if between is None:
                assert earliest.tolist() == due.tolist() == [NEVER] * 3
                continue
            assert labels == shown(int(later(begin, between)))
            heard = near[person] + (token == ASK)
            assert earliest.tolist() == [heard] * 3
            assert due.tolist() == [near[person] + 1] * 3
        elif abs(token - RELATION) <= REACH:
            assert kind == (COMMON if abs(token - RELATION) <= 1 else RARE)
            assert labels == shown(int(later(ORIGIN, token - RELATION)))
            assert due.tolist() == [0] * 3
        else:
            assert kind == -1, WORDS[token]
        assert not plan.unknown[row, mine].any()
    assert (plan.unknown[row, verdict] == NOTHING).all()
    between = kin.between(last, first)
    at_the_origin = begin == ORIGIN
    assert set(plan.kind[row, verdict].tolist()) == {VERDICT if at_the_origin or between is None else -1}
    if between is None:
        assert plan.due[row, size:].tolist() == [NEVER] * 3
    else:
        equal = [EQUAL if (between - asked) % hand == 0 else OTHER for hand in HANDS]
        assert batch.labels[row, verdict].tolist() == equal
        assert plan.earliest[row, verdict].tolist() == [near[last] + 1] * 3
        assert plan.due[row, verdict].tolist() == [near[last] + 2] * 3


def test_without_a_question_nobody_can_be_placed() -> None:
    batch = sampled(np.random.default_rng(3), Taste(quiet=1, cut=0), 8, 4)
    assert isinstance(batch.inputs, WordInputs)
    assert batch.schedule is not None
    tokens, placed, mask = batch.inputs
    assert (tokens[:, -LENGTH:] == BLANK).all()
    assert not placed.any()
    assert not mask[:, -LENGTH:].any()
    assert mask[:, :-LENGTH].all()
    assert batch.earlier is None
    asked = (batch.schedule.kind >= 0)[:, : 3 * tokens.shape[1]].unflatten(1, (-1, 3))
    names = (tokens >= NAME) & (tokens != BLANK)
    assert torch.equal(asked.all(dim=-1), names)
    assert torch.equal(asked.any(dim=-1), names)
    assert (batch.schedule.kind[:, -3:] == -1).all()
    assert (batch.schedule.due == NEVER).all()


@pytest.mark.parametrize("fact", [False, True], ids=["the question", "any fact"])
def test_one_sentence_of_each_row_comes_late(fact: bool) -> None:
    batch = sampled(np.random.default_rng(4), Taste(quiet=0, cut=0, late_fact=float(fact)), 30, 5)
    assert isinstance(batch.inputs, WordInputs)
    assert isinstance(batch.earlier, WordInputs)
    hidden = batch.earlier.tokens != batch.inputs.tokens
    assert torch.equal(hidden, ~batch.earlier.mask)
    assert (batch.earlier.tokens[hidden] == BLANK).all()
    sentences = hidden[:, 1:].unflatten(1, (-1, LENGTH))
    assert torch.equal(sentences.all(dim=-1), sentences.any(dim=-1))
    assert (sentences.all(dim=-1).sum(dim=-1) == 1).all()
    late = sentences.all(dim=-1).int().argmax(dim=-1)
    facts = sentences.shape[1] - 1
    assert ((late < facts) == fact).all()
    assert len(set(late.tolist())) > 3 or not fact
    assert torch.equal(batch.earlier.placed[~hidden], batch.inputs.placed[~hidden])
    assert not batch.earlier.placed[hidden].any()


def test_counting_begins_anywhere_in_as_many_stories_as_asked() -> None:
    begins = []
    for share in (0, 1):
        batch = sampled(np.random.default_rng(4), Taste(anywhere=share), 200, 2)
        begins.append(set(batch.inputs[1].amax(dim=1).tolist()) - {0})
    assert begins[0] == {ORIGIN}
    assert len(begins[1]) > 40


def test_questions_are_kept_apart_and_the_verdict_is_the_last_words() -> None:
    said = torch.randn(2, 5, 3, NOTHING + 3)
    last = torch.zeros(2, 1, 5)
    last[0, 0, 4] = last[1, 0, 2] = 1
    logits = logits_of(said, last)
    assert logits.shape == (2, 3 * 5 + 3, NOTHING + 3)
    torch.testing.assert_close(logits[:, :15, :NOTHING], said.flatten(1, 2)[..., :NOTHING])
    assert (logits[:, :15, NOTHING:] < -1e8).all(), "where one stands is no verdict"
    assert (logits[:, 15:, :NOTHING] < -1e8).all(), "and a verdict no place"
    torch.testing.assert_close(logits[0, 15:, NOTHING:], said[0, 4, :, NOTHING:])
    torch.testing.assert_close(logits[1, 15:, NOTHING:], said[1, 2, :, NOTHING:])


def test_unusual_stories_are_labelled_by_what_can_be_known() -> None:
    found = unusual_stories(np.random.default_rng(6), 30)
    assert set(found) == {"zigzag", "branches", "web", "twenty facts", "untold"}
    for kind, problems in found.items():
        farthest = 0
        for tokens, placed, mask, label in zip(*problems.inputs, problems.labels.tolist(), strict=True):
            facts, (last, asked, first) = read(tokens[mask].tolist())
            assert int(placed[mask][-1]) == ORIGIN
            between = kin_of(facts).between(last, first)
            assert label == (UNKNOWN if between is None else int(between == asked)), kind
            farthest = max(farthest, away(facts, first).get(last, 0))
        assert (set(problems.labels.tolist()) == {UNKNOWN}) == (kind == "untold")
        if kind != "untold":
            assert 0.2 < problems.labels.float().mean() < 0.8
            assert problems.difficulty == farthest
    assert set(TASK.unusual(np.random.default_rng(6), 2)) == set(found)


def test_a_taste_is_made_of_shares() -> None:
    for name in vars(Taste()):
        with pytest.raises(ValueError, match=f"{name} is 1.5, but must be in"):
            Taste(**{name: 1.5})
