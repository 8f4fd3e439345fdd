"""The advantages of a rollout are estimated once, for adaptation and for the update, and kept no longer than it."""

import gc
from typing import Any

import pytest

import metarl  # noqa: F401 (registers learners)
from metarl.agents.gradient.adaptation import Episodes
from metarl.rollouts.rollout import Rollout
from metarl.sampling.sampler import Sampler
from tests.runs import tiny

GRADIENT_LEARNERS = ["maml-trpo", "maml-ppo", "maml-vpg", "reptile"]


@pytest.mark.parametrize("name", GRADIENT_LEARNERS)
def test_support_and_query_are_estimated_once_each(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    estimated: list[int] = []
    estimate = Episodes.of

    def counted(rollout: Rollout, *given: Any) -> Episodes:
        estimated.append(id(rollout))
        return estimate(rollout, *given)

    monkeypatch.setattr(Episodes, "of", counted)
    config = tiny(name, "unused")
    learner, sampler = config.make_learner(), Sampler(config.make_family())
    assert learner.inner_steps == 1
    session = sampler.session(learner, config.split().train_tasks(2, 0), episodes=3)
    support = sampler.run(session, seed=0)
    session.adapt()
    query = sampler.run(session, seed=1)
    learner.update([support, query])
    assert estimated == [id(support), id(query)]


@pytest.mark.parametrize("name", GRADIENT_LEARNERS)
def test_they_go_with_the_rollout(name: str) -> None:
    config = tiny(name, "unused")
    learner: Any = config.make_learner()
    sampler, tasks = Sampler(config.make_family()), config.split().train_tasks(2, 0)
    rollout = sampler.collect(learner, learner.begin(2), tasks, 3, seed=0)
    learner.adapt(learner.begin(2), rollout)
    assert len(learner._advantages._known) == 1
    del rollout
    gc.collect()
    assert not learner._advantages._known
