"""Steering a thought through the client, with a model that ships."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from client import Client, NotFound
from tests.service.servers import shipped_running

CHAIN = {"edges": [[node, node + 1] for node in range(8)], "source": 0, "target": 8}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with shipped_running() as running, Client(str(running.base_url)) as client:
        yield client


def test_a_thought_that_was_kept_goes_on_as_if_it_had_never_stopped(client: Client) -> None:
    first = client.infer("graph", CHAIN, max_steps=3, keep=60, halting="none")
    assert first.results[0].answer is False
    on = client.infer("graph", continue_from=first.id, max_steps=12, halting="none", latents="full").results[
        0
    ]
    whole = client.infer("graph", CHAIN, max_steps=12, halting="none", latents="full").results[0]
    assert (on.answer, on.steps, on.probabilities) == (True, 12, whole.probabilities)
    assert isinstance(on.latents, np.ndarray)
    np.testing.assert_array_equal(on.latents, whole.latents)
    with pytest.raises(NotFound, match="no such thought"):
        client.infer("graph", continue_from="nobody", max_steps=12)


def test_an_intervention_has_an_effect_that_is_told(client: Client) -> None:
    result = client.infer(
        "graph",
        CHAIN,
        interventions=[{"step": 4, "op": "zero", "tokens": "all"}, {"step": 5, "op": "scale", "value": 0.0}],
        paired=True,
    ).results[0]
    assert result.effect
    assert result.effect.kl is not None
    assert result.effect.kl > 0


def test_samples_vote_and_steps_are_counted(client: Client) -> None:
    answer = client.infer(
        "graph", CHAIN, samples={"count": 4, "noise": 0.01, "seed": 7, "choose": "majority"}
    )
    (result,) = answer.results
    assert result.samples
    assert sum(result.samples.votes.values()) == 4
    assert result.samples.votes[str(result.label)] == 4 * result.samples.agreement
    assert answer.usage.steps >= 4 * 8


def test_the_answer_of_most_steps_and_the_doubt_among_them(client: Client) -> None:
    terms = {"halting": "none", "max_steps": 12, "include": ["answer_entropy"]}
    result = client.infer("graph", CHAIN, aggregate="mode", **terms).results[0]
    assert result.answer is False, "eight steps of twelve have not seen the target"
    assert isinstance(result.answer_entropy, float)
    assert result.answer_entropy > 0


def test_a_stream_shows_every_sample_apart(client: Client) -> None:
    with client.stream("graph", CHAIN, samples={"count": 2, "noise": 0.0}) as steps:
        samples = [step.sample for step in steps]
    assert set(samples) == {0, 1}
