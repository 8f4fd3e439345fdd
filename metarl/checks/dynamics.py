"""The part of ``check_family`` that steps a family's worlds."""

from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from tensordict import TensorDict
from torch import Tensor

from metarl.checks.problems import attempt, require
from metarl.families.family import Dynamics, TaskFamily, Transition
from metarl.seeding import generator

WORLDS, STEPS = 3, 4


class Episode(NamedTuple):
    """The outputs of worlds from a reset on, and whether their steps drew random numbers."""

    observations: list[Tensor]
    transitions: list[Transition]
    random: bool


def check_dynamics(family: TaskFamily, device: torch.device) -> None:
    """Check that a family's worlds implement ``Dynamics`` correctly; see ``check_family``.

    Raises:
        InputError: for the first problem.
    """
    tasks = family.sample_tasks(WORLDS, generator("check worlds")).to(device)
    actions = _actions(family, device)
    with attempt(family.name, "making its worlds"):
        family.check_device(device)
        worlds, twins = (family.dynamics(WORLDS, device) for _ in range(2))
    one = _play(family, worlds, tasks, actions)
    other = _play(family, twins, tasks, actions)
    pairs = zip(one.observations, other.observations, strict=True)
    same = all(torch.equal(a, b) for a, b in pairs) and all(
        torch.equal(a.rewards, b.rewards) and torch.equal(a.terminated, b.terminated)
        for a, b in zip(one.transitions, other.transitions, strict=True)
    )
    advice = "draw everything from the generator that is passed to reset and step"
    require(same, family.name, "the same seed and actions give another episode", advice)
    _check_masked_reset(family, worlds, twins, tasks, actions, one.random)
    worlds.close()
    twins.close()


def _actions(family: TaskFamily, device: torch.device) -> list[Tensor]:
    space = batch_space(family.action_space, WORLDS)
    space.seed(1)
    return [torch.as_tensor(space.sample(), device=device) for _ in range(STEPS)]


def _play(family: TaskFamily, worlds: Dynamics, tasks: TensorDict, actions: list[Tensor]) -> Episode:
    """Reset and step worlds, at most until the horizon."""
    stream = generator("check episode", device=tasks.device or "cpu")
    with attempt(family.name, "reset of all worlds"):
        worlds.reset(tasks, torch.ones(WORLDS, dtype=torch.bool, device=tasks.device), stream)
    observations, transitions = [_observed(family, worlds, "after reset")], []
    before = stream.get_state()
    for action in actions[: family.horizon]:
        kept = observations[-1].clone()
        with attempt(family.name, "step"):
            transitions.append(worlds.step(action, tasks, stream))
        _require_transition(family, transitions[-1])
        observations.append(_observed(family, worlds, "after a step"))
        own = torch.equal(kept, observations[-2])
        require(own, family.name, "a step overwrites the observations before it", "return memory of its own in observe")
    return Episode(observations, transitions, not torch.equal(before, stream.get_state()))


def _observed(family: TaskFamily, worlds: Dynamics, when: str) -> Tensor:
    """Return the worlds' observations, after checking that they are in the observation space."""
    with attempt(family.name, "observe"):
        seen = worlds.observe()
    space = family.observation_space
    dtype = torch.as_tensor(np.zeros((), space.dtype)).dtype
    shape = (WORLDS, *(space.shape or ()))
    _require_tensor(family, seen, f"observe {when}", dtype, shape)
    require(
        bool(seen.isfinite().all()), family.name, f"observe {when} returns NaN or infinity", "keep the state finite"
    )
    outside = [row for row in seen if not space.contains(row.cpu().numpy())]
    text = f"observe {when} returns {outside[0].tolist()} outside {' '.join(str(space).split())}" if outside else ""
    require(not outside, family.name, text[:300], "widen the observation space, or clip")
    return seen


def _require_transition(family: TaskFamily, given: Any) -> None:
    require(
        isinstance(given, Transition),
        family.name,
        "step returns no Transition",
        "return metarl.families.family.Transition",
    )
    _require_tensor(family, given.rewards, "step's rewards", torch.float32, (WORLDS,))
    _require_tensor(family, given.terminated, "step's terminated", torch.bool, (WORLDS,))
    if given.truncated is not None:
        _require_tensor(family, given.truncated, "step's truncated", torch.bool, (WORLDS,))
    finite = bool(given.rewards.isfinite().all())
    require(finite, family.name, "a reward is NaN or infinite", "keep rewards finite for all actions of the space")
    for key, value in given.info.items():
        _require_tensor(family, value, f"info {key!r} of step", None, (WORLDS,))


def _require_tensor(
    family: TaskFamily, value: Any, source: str, dtype: torch.dtype | None, shape: tuple[int, ...]
) -> None:
    wanted = f"a tensor {list(shape)} of {dtype or 'numbers'}"
    require(isinstance(value, Tensor), family.name, f"{source} is a {type(value).__name__}", f"return {wanted}")
    fits = tuple(value.shape) == shape and dtype in (None, value.dtype)
    require(fits, family.name, f"{source} is {value.dtype} {list(value.shape)}", f"return {wanted}")


def _check_masked_reset(
    family: TaskFamily, worlds: Dynamics, twins: Dynamics, tasks: TensorDict, actions: list[Tensor], random: bool
) -> None:
    """Reset one of the worlds: the others must continue like the twins, none of which is reset."""
    mask = torch.tensor([True] + [False] * (WORLDS - 1), device=tasks.device)
    stream = generator("check masked reset", device=tasks.device or "cpu")
    before = worlds.observe()
    with attempt(family.name, "reset of one world"):
        worlds.reset(tasks, mask, stream)
    after = _observed(family, worlds, "after the reset of one world")
    advice = "change a world's state only where the mask is true"
    require(torch.equal(before[1:], after[1:]), family.name, "reset changes worlds outside its mask", advice)
    if random:
        return  # the random streams of the two have diverged
    with attempt(family.name, "step after the reset of one world"):
        one, other = (each.step(actions[0], tasks, stream) for each in (worlds, twins))
    same = torch.equal(one.rewards[1:], other.rewards[1:]) and torch.equal(worlds.observe()[1:], twins.observe()[1:])
    require(same, family.name, "after the reset of one world others continue differently", advice)
