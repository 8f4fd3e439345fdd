import dataclasses

import pytest
import torch

from metarl.rollout import Rollout
from tests.fakes import made_up_rollout


def shortened(rollout: Rollout, length: int) -> Rollout:
    """Cut all episodes to ``length`` steps, and put garbage behind."""
    valid, rewards = rollout.valid.clone(), rollout.rewards.clone()
    valid[..., length:] = False
    rewards[..., length:] = 1e6
    return dataclasses.replace(rollout, valid=valid, rewards=rewards)


def test_num_tasks_is_the_leading_axis() -> None:
    assert made_up_rollout(tasks=4).num_tasks == 4


def test_env_steps_counts_only_steps_inside_episodes() -> None:
    # 2 tasks x 3 episodes x 4 of 6 steps.
    assert shortened(made_up_rollout(2, 3, 6), 4).env_steps == 24


def test_episode_returns_stop_at_the_end_of_the_episode() -> None:
    rollout = made_up_rollout(2, 3, 6)
    expected = rollout.rewards[..., :4].sum(-1)
    torch.testing.assert_close(shortened(rollout, 4).episode_returns(), expected)


def test_first_episodes_keeps_the_leading_ones() -> None:
    rollout = made_up_rollout(episodes=4)
    assert torch.equal(rollout.first_episodes(0.5).rewards, rollout.rewards[:, :2])


def test_first_episodes_cuts_every_tensor_but_the_tasks() -> None:
    part = made_up_rollout(tasks=2, episodes=4).first_episodes(0.5)
    tensors = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
    assert all(tensor.shape[:2] == (2, 2) for tensor in [*tensors, *part.distribution.tensors()])
    assert part.tasks.batch_size == torch.Size([2])


def test_first_episodes_keeps_at_least_one() -> None:
    assert made_up_rollout(episodes=4).first_episodes(0.01).rewards.shape[1] == 1


def test_all_first_episodes_are_the_rollout() -> None:
    rollout = made_up_rollout()
    assert torch.equal(rollout.first_episodes(1.0).observations, rollout.observations)


def test_map_reaches_tasks_and_distribution() -> None:
    rollout = made_up_rollout()
    zeros = rollout.map(torch.zeros_like)
    assert not zeros.tasks["goal"].any()
    assert not any(tensor.any() for tensor in zeros.distribution.tensors())


def test_map_leaves_the_original_alone() -> None:
    rollout = made_up_rollout()
    rollout.map(torch.zeros_like)
    assert rollout.rewards.any()


def test_to_keeps_values() -> None:
    rollout = made_up_rollout()
    assert torch.equal(rollout.to("cpu").rewards, rollout.rewards)


def test_a_rollout_cannot_be_reassigned() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        made_up_rollout().rewards = torch.zeros(1)  # type: ignore[misc]


def successful(rollout: Rollout, step: int) -> Rollout:
    """Let the first episode of the first task meet its goal in one step."""
    success = torch.zeros_like(rollout.valid)
    success[0, 0, step] = True
    return dataclasses.replace(rollout, success=success)


def test_an_episode_succeeds_in_any_of_its_steps() -> None:
    success = successful(made_up_rollout(2, 3, 6), 3).episode_success()
    assert success is not None
    assert success.tolist() == [[True, False, False], [False] * 3]


def test_success_behind_the_end_does_not_count() -> None:
    success = successful(shortened(made_up_rollout(2, 3, 6), 3), 3).episode_success()
    assert success is not None
    assert not success.any()


def test_success_is_unknown_unless_told() -> None:
    assert made_up_rollout().episode_success() is None


def test_success_goes_where_the_rollout_goes() -> None:
    rollout = successful(made_up_rollout(2, 4, 6), 3)
    assert rollout.success is not None
    mapped, first = rollout.map(torch.clone).success, rollout.first_episodes(0.5).success
    assert mapped is not None
    assert torch.equal(mapped, rollout.success)
    assert first is not None
    assert torch.equal(first, rollout.success[:, :2])
