"""Worlds of several environments, grouped by their models."""

import numpy as np
import torch
from tensordict import TensorDict

from metarl.envs.manipulation.worlds import ManipulationDynamics
from tests.envs.manipulation.theirs import drawn, ours, tasks_of, theirs

NAMES = ["push-v3", "door-open-v3", "push-v3", "drawer-close-v3", "hammer-v3"]
PLACED = [(name, drawn(name, 1, seed)[0]) for seed, name in enumerate(NAMES)]
TASKS = tasks_of(PLACED)


def drive(worlds: ManipulationDynamics, tasks: TensorDict, steps: int, seed: int) -> list[torch.Tensor]:
    """Return observations of random steps, whose actions do not depend on the other worlds."""
    streams = [torch.Generator().manual_seed(seed + row) for row in range(len(tasks))]
    seen = []
    for _ in range(steps):
        actions = torch.stack([2 * torch.rand(4, generator=stream) - 1 for stream in streams])
        worlds.step(actions, tasks, torch.Generator())
        seen.append(worlds.observe())
    return seen


def only(*rows: int) -> torch.Tensor:
    mask = torch.zeros(len(TASKS), dtype=torch.bool)
    mask[list(rows)] = True
    return mask


def test_worlds_of_different_environments_are_each_the_packages() -> None:
    worlds, packages = ours(TASKS), [theirs(*task) for task in PLACED]
    for env in packages:
        env.reset()
    stream = np.random.default_rng(0)
    for _ in range(10):
        actions = stream.uniform(-1, 1, (len(PLACED), 4)).astype(np.float32)
        transition = worlds.step(torch.from_numpy(actions), TASKS, torch.Generator())
        for row, env in enumerate(packages):
            observation, reward, *_ = env.step(actions[row])
            assert np.array_equal(worlds.observe()[row].numpy(), observation.astype(np.float32))
            assert abs(transition.rewards[row].item() - reward) < 1e-6
    assert (worlds.observe()[:, -3:] == 0).all()


def test_worlds_are_unaffected_when_others_change_their_environment() -> None:
    changed = TASKS.clone()
    changed[0] = tasks_of([("window-open-v3", drawn("window-open-v3", 1)[0])])[0]
    worlds, twin = ours(TASKS), ours(TASKS)
    drive(worlds, TASKS, 5, seed=1), drive(twin, TASKS, 5, seed=1)
    worlds.reset(changed, only(0), torch.Generator())
    assert torch.equal(worlds.observe()[1:], twin.observe()[1:])
    for one, other in zip(drive(worlds, changed, 5, seed=2), drive(twin, TASKS, 5, seed=2), strict=True):
        assert torch.equal(one[1:], other[1:])
        assert not torch.equal(one[0], other[0])


def test_an_episode_does_not_depend_on_those_before() -> None:
    fresh, used = ours(TASKS), ours(TASKS[[3, 4, 0, 1, 2]])  # type: ignore[arg-type]
    drive(used, TASKS, 5, seed=1)
    used.reset(TASKS, only(0, 1, 2, 3, 4), torch.Generator())
    assert torch.equal(fresh.observe(), used.observe())
    for one, other in zip(drive(fresh, TASKS, 5, seed=2), drive(used, TASKS, 5, seed=2), strict=True):
        assert torch.equal(one, other)


def test_a_reset_within_the_same_environments_starts_only_the_masked_worlds() -> None:
    worlds, fresh = ours(TASKS), ours(TASKS)
    drive(worlds, TASKS, 3, seed=1)
    before = worlds.observe()
    worlds.reset(TASKS, only(1, 4), torch.Generator())
    assert torch.equal(worlds.observe()[[0, 2, 3]], before[[0, 2, 3]])
    assert torch.equal(worlds.observe()[[1, 4]], fresh.observe()[[1, 4]])


def test_the_first_observation_has_itself_in_the_place_of_the_one_before() -> None:
    observations = ours(TASKS).observe()
    assert torch.equal(observations[:, :18], observations[:, 18:36])


def test_a_world_that_breaks_down_is_reported_until_its_reset() -> None:
    worlds = ours(TASKS)
    (pushing,) = [group for group in worlds._groups if group.prototype.name == "push-v3"]
    pushing.arms.rows["qvel"][1] = torch.nan
    drive(worlds, TASKS, 1, seed=0)
    assert worlds.unstable().tolist() == [False, False, True, False, False]
    worlds.reset(TASKS, only(2), torch.Generator())
    assert not worlds.unstable().any()
