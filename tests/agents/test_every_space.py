"""Every learner meets every kind of space: it learns there, or refuses in one line whose advice works."""

import re
from functools import cache

import numpy as np
import pytest
import torch
from gymnasium import spaces

import metarl  # noqa: F401 (registers learners)
from metarl.errors import InputError
from metarl.families.spaces import SINGLE
from metarl.learning.learner import LEARNERS
from tests.agents.any_spaces import ACTIONS, OBSERVATIONS, PLANE, AnySpaces, make, trained
from tests.runs import SELF_CONTAINED


@cache
def refusal(name: str, observations: str, actions: str) -> str | None:
    """Train a learner for an iteration; return the line with which it refuses the spaces, if it does."""
    try:
        _, (metrics,) = trained(name, AnySpaces(OBSERVATIONS[observations], ACTIONS[actions]))
    except InputError as error:
        return str(error)
    assert metrics
    assert all(np.isfinite(value) for value in metrics.values())
    return None


def check(name: str, observations: str, actions: str) -> None:
    """Check that a learner learns, or is refused in one line that names learners each of which learns."""
    if (line := refusal(name, observations, actions)) is not None:
        assert "\n" not in line
        advised = re.search(r"; use ([^,]*)", line)
        assert advised, line
        names = advised.group(1).split(" or ")
        assert set(names) <= set(LEARNERS), line
        assert [refusal(other, observations, actions) for other in names] == [None] * len(names)


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_every_learner_meets_every_observation(name: str) -> None:
    for observations in OBSERVATIONS:
        check(name, observations, "discrete" if name in ("dqn", "bandit-rule") else "float32")


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_every_learner_meets_every_action(name: str) -> None:
    for actions in ACTIONS:
        check(name, "float32", actions)


@pytest.mark.parametrize("name", ["maml-trpo", "maml-ppo", "maml-vpg", "reptile"])
def test_each_tasks_own_policy_does_not_read_large_images(name: str) -> None:
    kind, family = LEARNERS[name], AnySpaces(spaces.Box(0, 255, (84, 84, 3), np.uint8), PLANE)
    with pytest.raises(InputError, match=r"first layer has 1,354,752 weights on Box.*; use rl2, whose encoder"):
        kind(family, kind.config_class(), 1, torch.device("cpu"))


def test_a_convolution_reads_large_images() -> None:
    assert trained("rl2", AnySpaces(spaces.Box(0, 255, (84, 84, 3), np.uint8), PLANE))


@pytest.mark.parametrize("name", ["maml-trpo", "rl2", "ppo", "dqn", "pearl", "random"])
def test_what_no_policy_acts_in_is_refused_with_the_spaces_that_can_be_used(name: str) -> None:
    with pytest.raises(InputError, match="use a Box, Discrete, MultiDiscrete or MultiBinary space"):
        trained(name, AnySpaces(PLANE, spaces.Text(3)))


@pytest.mark.parametrize("name", ["maml-trpo", "rl2", "ppo", "pearl", "random"])
def test_what_no_learner_observes_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"no learner can observe Text.*; use a Box"):
        trained(name, AnySpaces(spaces.Dict({"text": spaces.Text(3)}), PLANE))


def test_refusals_are_the_exception() -> None:
    """Policies by gradient, in-context learners, PPO and random act in every space that is one tensor and bounded."""
    for name in ("maml-trpo", "rl2", "ppo", "a2c", "random"):
        for space in ACTIONS.values():
            bounded = not isinstance(space, spaces.Box) or space.is_bounded()
            assert isinstance(space, SINGLE)
            if bounded:
                make(name, AnySpaces(PLANE, space))
