"""What every learner can do, with every kind of spaces; registries find them, so that new ones are tested too."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import metarl  # noqa: F401 (registers families and learners)
from metarl.errors import InputError
from metarl.families.family import FAMILIES, TaskFamily, make_family
from metarl.learning.learner import Learner
from metarl.numerics.distributions import Distribution
from tests.agents.any_spaces import ACTIONS, EPISODES, OBSERVATIONS, TASKS, AnySpaces, make, sample, trained
from tests.runs import SELF_CONTAINED, copy_learner

HORIZON = 5
# Of observations and actions; test_every_space.py has every space.
KINDS = [
    ("float32", "float32"),
    ("float32", "discrete"),
    ("discrete", "discrete"),
    ("discrete", "float32"),
    ("image", "discrete"),
]


def smallest(name: str) -> TaskFamily:
    """Return a family with a short horizon, where it takes one."""
    try:
        return make_family(name, horizon=HORIZON)
    except InputError:
        return make_family(name)


every_kind = pytest.mark.parametrize("kind", KINDS, ids=", ".join)
every_learner = pytest.mark.parametrize("name", SELF_CONTAINED)
every_one_that_learns = pytest.mark.parametrize(
    "name", [name for name in SELF_CONTAINED if name not in ("random", "optimal", "bandit-rule")]
)


@cache
def refusal(name: str, kind: tuple[str, str]) -> str | None:
    """Return the line with which a learner refuses spaces of a kind, if it does."""
    try:
        make(name, AnySpaces(OBSERVATIONS[kind[0]], ACTIONS[kind[1]]))
    except InputError as error:
        return str(error)
    return None


def any_spaces(name: str, kind: tuple[str, str]) -> AnySpaces:
    """Return a family with spaces of a kind that the learner takes, or skip the test."""
    if (line := refusal(name, kind)) is not None:
        pytest.skip(line)
    return AnySpaces(OBSERVATIONS[kind[0]], ACTIONS[kind[1]])


@cache
def trained_once(name: str, kind: tuple[str, str]) -> tuple[Learner, list[dict[str, float]]]:
    """Return a learner after two iterations, and their metrics; nothing may be changed in it."""
    return trained(name, any_spaces(name, kind), iterations=2)


def plane(name: str) -> TaskFamily:
    """Return a family of positions in a plane whose actions the learner takes."""
    return smallest("gridnavi" if name in ("dqn", "bandit-rule") else "navigation-2d")


def act(
    learner: Learner, state: Any, observations: Tensor, stream: torch.Generator, deterministic: bool = False
) -> tuple[Tensor, Distribution]:
    """Act once, at the start of an episode."""
    working = learner.open(state, observations.shape[1], stream, deterministic)
    return learner.act(working, observations, stream, deterministic)


def numbers(content: Any) -> Tensor:
    """Return all tensors and numbers of a nested state in one vector."""
    if isinstance(content, Mapping):
        return torch.cat([torch.empty(0, dtype=torch.float64), *(numbers(content[key]) for key in sorted(content))])
    if isinstance(content, list | tuple):
        return torch.cat([numbers(value) for value in content])
    return torch.as_tensor(content, dtype=torch.float64).reshape(-1)


@every_one_that_learns
@every_kind
def test_training_changes_what_the_learner_knows(name: str, kind: tuple[str, str]) -> None:
    # Several iterations: on so little data a learner may well refuse a step.
    family = any_spaces(name, kind)
    learner = make(name, family)
    before = numbers(learner.state_dict())
    for iteration in range(12):
        learner.update(sample(learner, family, iteration))
        if not torch.equal(numbers(learner.state_dict()), before):
            return
    pytest.fail("twelve iterations changed nothing")


@every_learner
@every_kind
def test_the_same_seed_gives_the_same_bits_and_finite_ones(name: str, kind: tuple[str, str]) -> None:
    family = any_spaces(name, kind)
    (one, first), (other, second) = trained_once(name, kind), trained(name, family, iterations=2)
    assert first == second
    assert torch.equal(numbers(one.state_dict()), numbers(other.state_dict()))
    assert numbers(one.state_dict()).isfinite().all()
    assert all(metrics for metrics in first)
    assert all(isinstance(value, float) and np.isfinite(value) for metrics in first for value in metrics.values())


@every_learner
@every_kind
def test_acting_gives_actions_of_the_families_shape(name: str, kind: tuple[str, str]) -> None:
    family = any_spaces(name, kind)
    learner = make(name, family)
    space = learner.view(family, learner.config_class()).observation_space
    zero = torch.as_tensor(np.zeros(space.shape or (), space.dtype))
    observations = zero.expand(TASKS, EPISODES, *zero.shape)
    actions, _ = act(learner, learner.begin(TASKS), observations, torch.Generator())
    assert actions.shape == (TASKS, EPISODES, *(family.action_space.shape or ()))


@every_learner
@every_kind
def test_its_state_goes_through_a_safe_file(name: str, kind: tuple[str, str], tmp_path: Path) -> None:
    # weights_only: nothing but tensors, numbers, strings and containers may be in it.
    family = any_spaces(name, kind)
    learner, other = trained_once(name, kind)[0], make(name, family, seed=2)
    torch.save(learner.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(numbers(other.state_dict()), numbers(learner.state_dict()))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_learner_takes_an_iteration_on_every_family(name: str) -> None:
    family, taken = smallest(name), []
    for learner in SELF_CONTAINED:
        try:
            (metrics,) = trained(learner, family)[1]
        except InputError:  # what refusals say is tested where the spaces are: test_every_space.py
            continue
        taken.append(learner)
        assert all(np.isfinite(value) for value in metrics.values()), learner
    assert {"maml-trpo", "rl2", "random", "ppo"} <= set(taken)


@every_one_that_learns
def test_another_seed_starts_elsewhere(name: str) -> None:
    family = plane(name)
    one, other = make(name, family, seed=1), make(name, family, seed=2)
    assert not torch.equal(numbers(one.state_dict()), numbers(other.state_dict()))


@every_one_that_learns
def test_its_parameters_are_known_by_name(name: str) -> None:
    learner = trained_once(name, next(kind for kind in KINDS if refusal(name, kind) is None))[0]
    parameters = learner.parameters()
    assert sum(value.numel() for value in parameters.values()) > 50
    assert all(value.device.type == "cpu" and value.is_floating_point() for value in parameters.values())


@every_learner
def test_deterministic_actions_do_not_draw(name: str) -> None:
    family = plane(name)
    learner, observations = make(name, family), torch.zeros(TASKS, EPISODES, 2)
    one, other = (
        act(learner, learner.begin(TASKS), observations, torch.Generator().manual_seed(seed), deterministic=True)[0]
        for seed in (1, 2)
    )
    assert torch.equal(one, other)


@every_one_that_learns
def test_adaptation_changes_how_it_acts(name: str) -> None:
    family = plane(name)
    learner = make(name, family)
    start, observations = learner.begin(TASKS), torch.zeros(TASKS, EPISODES, 2)
    adapted = learner.adapt(start, sample(learner, family)[0])
    one, other = (act(learner, state, observations, torch.Generator().manual_seed(1))[0] for state in (start, adapted))
    assert not torch.equal(one, other)


@every_learner
def test_adaptation_does_not_change_the_learner(name: str) -> None:
    family = plane(name)
    learner = make(name, family)
    before = numbers(learner.state_dict()).clone()
    learner.adapt(learner.begin(TASKS), sample(learner, family)[0])
    assert torch.equal(numbers(learner.state_dict()), before)


@every_learner
def test_a_loaded_learner_learns_on_to_the_same_numbers(name: str) -> None:
    family = plane(name)
    learner, other = trained(name, family)[0], make(name, family, seed=2)
    copy_learner(learner, other)
    for each in (learner, other):
        each.update(sample(each, family, iteration=7))
    assert torch.equal(numbers(other.state_dict()), numbers(learner.state_dict()))
