"""Acting in the episodes of several sessions with one forward pass, whether they are at the same step or not.

A row's numbers must not depend on who else acts, or a session could not be repeated alone. Matrix products of another
number of rows may round differently. So a pass always has ``WIDTH`` rows, some of which may be copies; ``rows_agree``
checks that a row's place among them does not matter.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.graphs import form_of, tensors_of
from metarl.learning.learner import Learner
from metarl.numerics.distributions import Distribution
from metarl.sampling.open_episodes import OpenEpisodes

WIDTH = 16
# Steps for which ``rows_agree`` tries whether rows agree.
TRIED_STEPS = 3


@dataclass(frozen=True)
class Choice:
    """What was chosen in the episodes of one task.

    Attributes:
        actions: ``[1, E, *action]`` as sampled from the policy.
        distribution: of these actions, with tensors ``[1, E, ...]`` or broadcastable to that.
        env_actions: the same actions in units of the action space.
    """

    actions: Tensor
    distribution: Distribution
    env_actions: Tensor


@torch.no_grad()
def act_together(
    learner: Learner, running: Sequence[OpenEpisodes], observations: Sequence[Tensor], width: int = WIDTH
) -> list[Choice]:
    """Choose actions in the running episodes of several tasks, each a session of its own.

    Args:
        learner: the one that acts in all of them.
        running: the open episodes of one task each.
        observations: ``[1, E, *observation]`` for each.
        width: rows of a forward pass; 1 acts in one task after another.
    """
    working, forms = [each.working for each in running], [each.form for each in running]
    distributions = _distributions(learner, working, forms, observations, width)
    choices = []
    for each, seen, distribution in zip(running, observations, distributions, strict=True):
        actions = distribution.mode() if each.deterministic else distribution.sample(each.noise)
        choices.append(Choice(actions, distribution, each.take(seen, actions, distribution)))
    return choices


@torch.no_grad()
def act_again(
    learner: Learner,
    running: OpenEpisodes,
    observations: Tensor,
    actions: Tensor,
    distribution: Distribution,
    width: int = WIDTH,
) -> Tensor:
    """Bring running episodes to where they were after a choice that ``act_together`` made; return its actions.

    Everything else that acting changes is as it was then: a memory has read the observations, the noise was drawn.
    """
    (again,) = _distributions(learner, [running.working], [running.form], [observations], width)
    if not running.deterministic:
        again.sample(running.noise)
    return running.take(observations, actions, distribution)


def rows_agree(learner: Learner, observations: Tensor) -> bool:
    """Return whether a row of a forward pass gets the same bits wherever it is, so that ``WIDTH`` rows may share one.

    Args:
        learner: whose passes are tried, for ``TRIED_STEPS`` steps with random rewards.
        observations: ``[WIDTH, *observation]``, all different.
    """
    if not learner.capturable:
        return False
    outcomes = [_outcomes(learner, observations, turn) for turn in (0, 1, WIDTH // 2)]
    return all(
        torch.equal(one, other)
        for rows in zip(*outcomes, strict=True)
        for same in zip(*rows, strict=True)
        for one, other in pairwise(same)
    )


@torch.no_grad()
def _outcomes(learner: Learner, observations: Tensor, turn: int) -> list[list[Tensor]]:
    """Return the last distribution and state of each row after a few steps, rows acting ``turn`` places further on."""
    device = observations.device
    rows = [(place - turn) % WIDTH for place in range(WIDTH)]
    noises = [torch.Generator(device).manual_seed(row) for row in rows]
    working = [learner.open(learner.begin(1), 1, noise) for noise in noises]
    seen = [observations[row][None, None] for row in rows]
    goes_on = torch.zeros(1, 1, dtype=torch.bool, device=device)
    for _ in range(TRIED_STEPS):
        found = _distributions(learner, working, list(map(form_of, working)), seen, WIDTH)
        # Only inputs that are not zero are rounded: a memory must have read actions and rewards.
        for state, distribution, noise in zip(working, found, noises, strict=True):
            reward = torch.rand(1, 1, generator=noise, device=device)
            learner.observe(state, distribution.sample(noise), reward, goes_on)
    outcomes = [[*each.tensors(), *tensors_of(state)] for each, state in zip(found, working, strict=True)]
    return outcomes[turn:] + outcomes[:turn]


def _distributions(
    learner: Learner, working: Sequence[Any], forms: Sequence[Any], observations: Sequence[Tensor], width: int
) -> list[Distribution]:
    """Read the observations into the open states, which have these forms; return the distribution in each of them."""
    if width == 1 or not learner.capturable:
        return [learner.action_distribution(*each) for each in zip(working, observations, strict=True)]
    found: dict[int, Distribution] = {}
    for numbers in _alike(forms, observations):
        for start in range(0, len(numbers), width):
            chosen = numbers[start : start + width]
            rows = chosen + [chosen[0]] * (width - len(chosen))
            joined = _joined([working[row] for row in rows])
            parts = tensors_of(joined)
            before = [part._version for part in parts]
            together = learner.action_distribution(joined, torch.cat([observations[row] for row in rows]))
            changed = [part._version > version for part, version in zip(parts, before, strict=True)]
            for place, row in enumerate(chosen):
                found[row] = together.map(lambda tensor: tensor if len(tensor) == 1 else tensor[place : place + 1])  # noqa: B023
                _take_back(working[row], parts, changed, place, width)
    return [found[row] for row in range(len(working))]


def _alike(forms: Sequence[Any], observations: Sequence[Tensor]) -> list[list[int]]:
    """Return the numbers of the open states that can be joined, group by group."""
    groups: dict[Any, list[int]] = {}
    for number, (form, seen) in enumerate(zip(forms, observations, strict=True)):
        groups.setdefault((form, seen.shape), []).append(number)
    return list(groups.values())


def _joined(states: Sequence[Any]) -> Any:
    """Return open states of one form as one, along the first axis of their tensors: the tasks, or their episodes."""
    first = states[0]
    if isinstance(first, Tensor):
        return torch.cat(list(states))
    if isinstance(first, TensorDict):
        return TensorDict({name: torch.cat([each[name] for each in states]) for name in first.keys()}, [len(states)])
    if isinstance(first, dict):
        return {name: _joined([each[name] for each in states]) for name in first}
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in dataclasses.fields(first) if field.name != "state"]
        return dataclasses.replace(first, **{name: _joined([getattr(each, name) for each in states]) for name in names})
    return first


def _take_back(state: Any, parts: Sequence[Tensor], changed: Sequence[bool], place: int, width: int) -> None:
    """Copy what a pass changed in the joined state, at one of its places, into the state that is there."""
    if not any(changed):
        return
    for own, part, differs in zip(tensors_of(state), parts, changed, strict=True):
        if differs:
            own.copy_(part.view(width, *own.shape)[place])
