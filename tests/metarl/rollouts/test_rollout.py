import dataclasses

import numpy as np
import pytest
import torch

from metarl.errors import InputError
from metarl.rollouts.rollout import Episode, Rollout
from tests.fakes import made_up_rollout


def shortened(rollout: Rollout, length: int) -> Rollout:
    """Cut all episodes to ``length`` steps, and put garbage after them."""
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


def test_success_after_the_end_does_not_count() -> None:
    success = successful(shortened(made_up_rollout(2, 3, 6), 3), 3).episode_success()
    assert success is not None
    assert not success.any()


def test_success_is_unknown_unless_reported() -> None:
    assert made_up_rollout().episode_success() is None


def test_success_goes_where_the_rollout_goes() -> None:
    rollout = successful(made_up_rollout(2, 4, 6), 3)
    assert rollout.success is not None
    mapped, first = rollout.map(torch.clone).success, rollout.first_episodes(0.5).success
    assert mapped is not None
    assert torch.equal(mapped, rollout.success)
    assert first is not None
    assert torch.equal(first, rollout.success[:, :2])


def episode(steps: int, terminated: bool = True, observation_size: int = 2, seed: int = 0) -> Episode:
    draws = np.random.default_rng(seed)
    observations, actions = (
        draws.normal(size=(count, size)).astype(np.float32)
        for count, size in ((steps + 1, observation_size), (steps, 1))
    )
    return Episode(observations, actions, draws.normal(size=steps), terminated)


def test_recorded_episodes_lie_in_rows_with_zeros_after_their_ends() -> None:
    recorded = [[episode(3, seed=1), episode(5, False, seed=2)], [episode(1, seed=3), episode(2, seed=4)]]
    rollout = Rollout.from_episodes(recorded)
    assert rollout.valid.sum(-1).tolist() == [[3, 5], [1, 2]]
    assert rollout.terminated.nonzero().tolist() == [[0, 0, 2], [1, 0, 0], [1, 1, 1]]
    assert rollout.truncated.nonzero().tolist() == [[0, 1, 4]]
    for task, episodes in enumerate(recorded):
        for number, each in enumerate(episodes):
            steps = len(each.rewards)
            np.testing.assert_array_equal(rollout.observations[task, number, :steps], each.observations[:-1])
            np.testing.assert_array_equal(rollout.final_observations[task, number], each.observations[-1])
            np.testing.assert_array_equal(rollout.actions[task, number, :steps], each.actions)
            np.testing.assert_allclose(rollout.rewards[task, number, :steps], each.rewards, rtol=1e-6)
            assert not rollout.rewards[task, number, steps:].any()
    assert rollout.tasks.batch_size == (2,)
    assert (rollout.log_probs, rollout.distribution, rollout.success) == (None, None, None)


def test_episodes_are_the_inverse_of_from_episodes() -> None:
    rollout = shortened(made_up_rollout(2, 3, 6), 6)
    again = Rollout.from_episodes(list(rollout.episodes()), rollout.tasks)
    for name in ("observations", "actions", "rewards", "terminated", "truncated", "valid", "final_observations"):
        assert torch.equal(getattr(again, name), getattr(rollout, name)), name


def test_tasks_with_different_numbers_of_episodes_are_refused() -> None:
    with pytest.raises(InputError, match=r"the same number of episodes, at least 1, not \[1, 2\]"):
        Rollout.from_episodes([[episode(2)], [episode(2), episode(2)]])


def test_no_episodes_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        Rollout.from_episodes([])


def test_episodes_of_different_observations_are_refused() -> None:
    with pytest.raises(InputError, match=r"the same shapes in all episodes, not \[\(2,\), \(3,\)\]"):
        Rollout.from_episodes([[episode(2), episode(2, observation_size=3)]])


def test_an_episode_with_too_few_observations_is_refused() -> None:
    with pytest.raises(InputError, match=r"T \+ 1 observations.*not 2, 2 and 2"):
        Episode(np.zeros((2, 1)), np.zeros((2, 1)), np.zeros(2), True)


def test_what_recorded_episodes_do_not_know_is_refused_in_one_line() -> None:
    rollout = Rollout.from_episodes([[episode(2)]])
    for ask in (rollout.known_log_probs, rollout.known_distribution):
        with pytest.raises(InputError, match="the probabilities of their actions"):
            ask()
