"""Stories: facts about kin in sentences, as a network that reads them word by word is taught.

A story has a chain of links from the one the question compares with to the one it asks about, branches
off it, and strangers. What is graded is true of every word: names stand in generations, relations mean
displacements, the question's mark hears the generation of whoever is asked about, and then gives its
verdict. None of them can be known before the evidence has come along the chain, one link a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.codecs.generations import GENERATIONS, Kin, later
from model.codecs.sentences import REACH
from model.codecs.words import ANSWER, ASK, BLANK, IS, LENGTH, NAME, NAMES, OF, ORIGIN, RELATION, STOP, THE
from model.network.perception import HANDS, UNKNOWN, WordInputs, hands
from training.task import NEVER, Batch, Problems, Schedule

PEOPLE, STRANGERS = 20, 9  # of a story, and at least beside its chain and branches
FEW, MANY = (2, 4), (0, 7)  # facts about strangers
GENERATION, HEARD, COMMON, RARE, VERDICT = range(5)  # kinds of questions
SHARES = (  # of the loss: due, not yet, never (training/task.py)
    (1.0, 0.5, 0.5),
    (0.5, 0.2, 0.2),
    (0.1, 0.0, 0.0),
    (0.5, 0.0, 0.0),
    (0.5, 0.2, 0.2),
)
NOTHING, EQUAL, OTHER = range(sum(HANDS) + 1, sum(HANDS) + 4)  # classes of the verdict, behind the places

BARRED = -1e9  # the logit of a class that is no answer to a question
Fact = tuple[int, int, int]  # a, s, b: a stands s generations above b


@dataclass(frozen=True)
class Taste:
    """What stories are like, in shares of batches unless said otherwise."""

    zigzag: float = 0.4  # chains that go up and down as they like; the others go up, then down
    branches: float = 0.25  # a few people beside the chain
    crowd: float = 0.4  # any number of facts about strangers; otherwise two to four
    web: float = 0.3  # of stories: strangers know each other
    lesson: float = 0.4  # of facts about strangers: any relation, so that rare words are learned
    anywhere: float = 0.5  # of stories: counting begins at any generation, not at the origin
    quiet: float = 0.08  # nothing is asked, so that nobody can be placed
    cut: float = 0.08  # one link of the chain is not told
    late_fact: float = 0.5  # of late batches: a fact comes late, and not the question

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}, but must be in [0, 1]")


@dataclass(frozen=True)
class Story:
    """One story and its question: does `last` stand `asked` generations above `first`?"""

    facts: list[Fact]
    first: int
    last: int
    asked: int
    above: dict[int, int]  # generations above `first`, of whoever can be known to be related
    links: dict[int, int]  # how many links away from `first`


def story(
    rng: np.random.Generator,
    taste: Taste,
    links: int,
    strangers: int,
    zigzag: bool = False,
    branches: int = 0,
    cut: bool = False,
) -> Story:
    """A story with a chain of so many links, so many facts about strangers, and people off the chain."""
    people = [int(one) for one in rng.permutation(NAMES)]
    chain, others = people[: links + 1], people[links + 1 : max(PEOPLE, links + branches + STRANGERS)]
    ups = int(rng.integers(0, links + 1))
    turns = rng.choice((1, -1), links).tolist() if zigzag else [1] * ups + [-1] * (links - ups)
    above, away = {chain[0]: 0}, {chain[0]: 0}
    facts: list[Fact] = []
    for here, there, up in zip(chain, chain[1:], turns, strict=False):
        above[there], away[there] = above[here] + up, away[here] + 1
        facts.append((there, up, here))
    for _ in range(branches):
        near = [person for person in above if away[person] < max(1, links)]
        here, there, up = int(rng.choice(near)), others.pop(), int(rng.choice((1, -1, 1, -1, 0)))
        above[there], away[there] = above[here] + up, away[here] + 1
        facts.append((there, up, here))
    last = chain[-1]
    offset = above[last]
    if cut:
        del facts[int(rng.integers(0, links))]
        reached = _reached(facts, chain[0])
        above = {person: up for person, up in above.items() if person in reached}
    facts += _strangers(rng, taste, others, strangers)
    facts = [(b, -s, a) if rng.random() < 0.5 else (a, s, b) for a, s, b in facts]
    order = rng.permutation(len(facts))
    return Story([facts[place] for place in order], chain[0], last, _asked(rng, offset), above, away)


def sampled(rng: np.random.Generator, taste: Taste, rows: int, links: int) -> Batch:
    """Stories of one length, with everything that can be asked about them and when it can be known."""
    few, most = MANY if rng.random() < taste.crowd else FEW
    strangers = int(rng.integers(few, most + 1))
    zigzag = rng.random() < taste.zigzag
    branches = int(rng.integers(1, 4)) if rng.random() < taste.branches else 0
    special = rng.random()
    quiet, cut = special < taste.quiet, taste.quiet <= special < taste.quiet + taste.cut
    stories = [story(rng, taste, links, strangers, zigzag, branches, cut) for _ in range(rows)]
    begin = np.where(rng.random(rows) < taste.anywhere, rng.integers(0, GENERATIONS, rows), 0)
    inputs = told(stories, begin)
    questions = [_questions(each, int(at), cut) for each, at in zip(stories, begin, strict=True)]
    labels, earliest, due, kind = (torch.tensor(part) for part in zip(*questions, strict=True))
    hidden = _late(rng, taste, inputs.tokens.shape)
    if quiet:
        hidden = torch.arange(inputs.tokens.shape[1]).expand_as(hidden) >= inputs.tokens.shape[1] - LENGTH
        names = (inputs.tokens >= NAME) & ~hidden
        nothing = torch.zeros_like(names[:, : len(HANDS)])
        asked = torch.cat((names.repeat_interleave(len(HANDS), dim=1), nothing), dim=1)
        kind = torch.where(asked, GENERATION, -1)
        earliest, due = torch.full_like(due, NEVER), torch.full_like(due, NEVER)
        inputs = without(inputs, hidden)
    unknown = torch.zeros_like(labels)
    unknown[:, -len(HANDS) :] = NOTHING
    schedule = Schedule(earliest, due, kind, SHARES, unknown)
    special_batch = quiet or cut
    return Batch(
        inputs,
        labels,
        torch.ones(labels.shape),
        links,
        schedule,
        earlier=None if special_batch else without(inputs, hidden),
    )


def unusual_stories(rng: np.random.Generator, count: int) -> dict[str, Problems]:
    """Stories that the paper's generator never tells, by name."""
    taste = Taste()
    kinds: dict[str, Callable[[], Story]] = {
        "zigzag": lambda: story(rng, taste, int(rng.integers(3, 13)), 3, zigzag=True),
        "branches": lambda: story(rng, taste, int(rng.integers(3, 10)), 3, zigzag=True, branches=3),
        "web": lambda: story(rng, replace(taste, web=1.0), int(rng.integers(2, 8)), 7),
        "twenty facts": lambda: story(rng, taste, 6, 14),
        "untold": lambda: story(rng, taste, int(rng.integers(2, 8)), 3, cut=True),
    }
    found = {}
    for name, draw in kinds.items():
        stories = [draw() for _ in range(count)]
        longest = max(len(each.facts) for each in stories)
        rows = [grown(told([each]), longest) for each in stories]
        inputs = WordInputs(*(torch.cat(parts) for parts in zip(*rows, strict=True)))
        labels = torch.tensor([_truth(each) for each in stories])
        found[name] = Problems(inputs, labels, max(each.links[each.last] for each in stories))
    return found


def _truth(each: Story) -> int:
    """The class of the right answer: false, true, or unknown where nothing can be known."""
    return int(each.above[each.last] == each.asked) if each.last in each.above else UNKNOWN


def grown(inputs: WordInputs, facts: int) -> WordInputs:
    """The same with room for so many facts."""
    missing = 1 + LENGTH * (facts + 1) - inputs.tokens.shape[1]
    return WordInputs(*(torch.nn.functional.pad(part, (0, missing)) for part in inputs))


def told(stories: list[Story], begin: np.ndarray | None = None) -> WordInputs:
    """Stories with as many facts each in words. begin: how far from the origin counting begins, (B,)."""
    tokens = torch.tensor([_tokens(each) for each in stories])
    placed = torch.zeros_like(tokens)
    offsets = np.zeros(len(stories), np.int64) if begin is None else begin
    placed[:, -1] = torch.from_numpy(np.asarray(later(np.full(len(stories), ORIGIN), offsets)))
    return WordInputs(tokens, placed, torch.ones_like(tokens, dtype=torch.bool))


def without(inputs: WordInputs, hidden: Tensor) -> WordInputs:
    """The same while some words are not there yet."""
    return WordInputs(
        inputs.tokens.masked_fill(hidden, BLANK), inputs.placed.masked_fill(hidden, 0), inputs.mask & ~hidden
    )


def logits_of(said: Tensor, last: Tensor) -> Tensor:
    """What the head says of every word's hands, (B, N, 3, 16), -> every question's logits, (B, 3 N + 3, 16).

    last (B, 1, N), one-hot: where the question's mark stands. Classes of another question are barred.
    """
    verdict = torch.unflatten(last @ said.flatten(2), 2, said.shape[2:]).flatten(1, 2)  # (B, 3, 16)
    classes = torch.arange(said.shape[-1], device=said.device)
    return torch.cat(
        (
            said.flatten(1, 2).masked_fill(classes >= NOTHING, BARRED),
            verdict.masked_fill(classes < NOTHING, BARRED),
        ),
        dim=1,
    )


def _tokens(each: Story) -> list[int]:
    tokens = [ANSWER]
    for sentence, end in (*((fact, STOP) for fact in each.facts), ((each.last, each.asked, each.first), ASK)):
        one, generations, other = sentence
        tokens += [NAME + one, IS, THE, RELATION + generations, OF, NAME + other, end]
    return tokens


def _questions(each: Story, begin: int, cut: bool) -> tuple[list[int], list[int], list[int], list[int]]:
    """labels, earliest, due and kind of the questions that are asked of a story: 3 N + 3 each."""
    rows: list[tuple[int, int, int, int]] = []  # generation, earliest, due, kind
    linked = each.last in each.above
    far = each.links[each.last]
    for token in _tokens(each):
        if token >= NAME:
            person = token - NAME
            if person in each.above:
                away = each.links[person]
                rows.append((_generation(begin + each.above[person]), away, away + 1, GENERATION))
            else:
                rows.append((0, NEVER, NEVER, GENERATION))
        elif token == ASK:
            when = far + 1 if linked else NEVER
            rows.append((_generation(begin + each.above.get(each.last, 0)), when, when, HEARD))
        elif abs(token - RELATION) <= REACH:
            generations = token - RELATION
            rows.append((_generation(generations), 0, 0, COMMON if abs(generations) <= 1 else RARE))
        else:
            rows.append((0, 0, 0, -1))
    labels = hands(torch.tensor([row[0] for row in rows])).flatten().tolist()
    earliest, due, kind = ([row[part] for row in rows for _ in HANDS] for part in (1, 2, 3))
    # The verdict; beside one that is not at the origin a relation means nothing.
    asked = VERDICT if begin == 0 or not linked else -1
    for hand in HANDS:
        equal = linked and (each.above[each.last] - each.asked) % hand == 0
        labels.append(EQUAL if equal else OTHER)
        earliest.append(far + 1 if linked else NEVER)
        due.append(far + 2 if linked else NEVER)
        kind.append(asked)
    assert linked or cut, "only a cut leaves the question open"
    return labels, earliest, due, kind


def _late(rng: np.random.Generator, taste: Taste, shape: tuple[int, ...]) -> Tensor:
    """Which words come late, (B, N) bool: of all rows the question, or of each row any fact."""
    rows, tokens = shape
    sentence = (np.arange(tokens) - 1) // LENGTH
    facts = (tokens - 1) // LENGTH - 1
    late = np.full(rows, facts)
    if facts > 1 and rng.random() < taste.late_fact:
        late = rng.integers(0, facts, rows)
    return torch.from_numpy(sentence == late[:, None])


def _strangers(rng: np.random.Generator, taste: Taste, others: list[int], count: int) -> list[Fact]:
    web = rng.random() < taste.web
    kin = Kin(NAMES)
    met: list[tuple[int, int]] = []
    facts: list[Fact] = []
    for _ in range(count if len(others) > 1 else 0):
        for _ in range(20):  # two who have not met
            one, other = (int(person) for person in rng.choice(others, 2, replace=False))
            if web and met:
                one = met[int(rng.integers(0, len(met)))][int(rng.integers(0, 2))]
            if one != other and (one, other) not in met and (other, one) not in met:
                break
        else:
            one, other = met[0]  # all have; somebody says it again
            facts.append(next((a, s, b) for a, s, b in facts if (a, b) == (one, other)))
            continue
        met.append((one, other))
        lesson = rng.random() < taste.lesson
        above = int(rng.integers(-REACH, REACH + 1)) if lesson else int(rng.choice((1, -1, 0)))
        known = kin.between(one, other)
        if known is None:
            kin.join(one, other, above)
        elif abs(known) <= REACH:
            above = known  # the others say so already
        else:
            facts.append(facts[0])  # there is no word for it; somebody says something again
            continue
        facts.append((one, above, other))
    return facts


def _asked(rng: np.random.Generator, offset: int) -> int:
    """Half of the questions are true, most others as far off as the paper's."""
    draw = rng.random()
    if draw < 0.5:
        return offset
    if draw < 0.85:
        by = int(rng.choice((2, -2, 4, -4) if draw < 0.75 else (1, -1, 3, -3)))
        return offset + by if abs(offset + by) <= REACH else offset - by
    return int(rng.integers(-REACH, REACH + 1))


def _reached(facts: list[Fact], first: int) -> set[int]:
    """Whom facts connect with somebody."""
    reached, before = {first}, 0
    while len(reached) > before:
        before = len(reached)
        reached |= {person for a, _, b in facts if a in reached or b in reached for person in (a, b)}
    return reached


def _generation(above: int) -> int:
    """So many generations above the origin on the clock: 1..GENERATIONS."""
    return int(later(ORIGIN, above))
