from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.sampling.sampler import Sampler
from tests.fakes import EchoFamily, NoisyActor, echo_tasks, made_up_rollout

FIELDS = ("observations", "actions", "rewards", "log_probs", "terminated")


def collected(lifetimes: list[int], seed: int, episodes: int = 2, horizon: int = 4) -> Rollout:
    """Return episodes that end after their task's lifetime; observations are task, steps taken, and episode."""
    family, tasks = EchoFamily(horizon), echo_tasks([10.0 * (task + 1) for task in range(len(lifetimes))], lifetimes)
    return Sampler(family).collect(NoisyActor(), None, tasks, episodes, seed)


def episode(rollout: Rollout, task: int, number: int, name: str) -> Tensor:
    """Return the steps of one episode, without the padding."""
    values: Tensor = getattr(rollout, name)
    return values[task, number, rollout.valid[task, number]]


def test_a_trial_is_its_episodes_one_after_the_other() -> None:
    rollouts = [made_up_rollout(seed=seed) for seed in range(3)]
    trials = Trials.of(rollouts)
    assert trials.rewards.shape == (6, 18)
    for name in FIELDS:
        expected = torch.cat([getattr(rollout, name)[1, 2] for rollout in rollouts])
        assert torch.equal(getattr(trials, name)[5], expected)  # task 1, episode 2 of 3


def test_episodes_that_end_early_leave_no_gap() -> None:
    rollouts = [collected([1, 3, 9], seed) for seed in range(3)]
    trials = Trials.of(rollouts)
    assert trials.lengths.tolist() == [3, 3, 9, 9, 12, 12]
    assert trials.valid.shape == (6, 12)
    for row, length in enumerate(trials.lengths.tolist()):
        assert trials.valid[row].tolist() == [True] * length + [False] * (12 - length)
        for name in FIELDS:
            expected = torch.cat([episode(rollout, row // 2, row % 2, name) for rollout in rollouts])
            assert torch.equal(getattr(trials, name)[row, :length], expected)


def test_the_longest_trial_sets_the_length() -> None:
    assert Trials.of([collected([1, 3, 2], seed) for seed in range(2)]).valid.shape == (6, 6)


def test_zeros_come_after_a_trial() -> None:
    trials = Trials.of([collected([1, 3, 9], seed) for seed in range(2)])
    assert not trials.valid.all()
    for name in ("observations", "next_observations", "actions", "rewards", "terminated", "starts"):
        assert not getattr(trials, name)[~trials.valid].any()


def test_starts_are_the_first_steps_of_episodes() -> None:
    trials = Trials.of([collected([1, 3, 9], seed) for seed in range(2)])
    assert trials.starts[0, :2].tolist() == [True, True]
    assert trials.starts[2, :6].tolist() == [True, False, False, True, False, False]
    assert trials.starts.sum(1).tolist() == [2] * 6


def test_terminations_are_at_the_ends_of_episodes() -> None:
    # The third task's episodes are cut off by the horizon.
    trials = Trials.of([collected([1, 3, 9], seed) for seed in range(2)])
    assert trials.terminated[2, :6].tolist() == [False, False, True, False, False, True]
    assert not trials.terminated[4].any()


def test_next_observations_are_those_after_the_action() -> None:
    # The second component counts the steps taken in the episode, the third is a number of the episode.
    trials = Trials.of([collected([1, 3, 9], seed) for seed in range(2)])
    assert trials.next_observations[2, :6, 1].tolist() == [1, 2, 3, 1, 2, 3]
    for name in ("observations", "next_observations"):
        assert len(getattr(trials, name)[2, :3, 2].unique()) == 1
    assert torch.equal(trials.next_observations[2, :6, 2], trials.observations[2, :6, 2])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 50))
@settings(deadline=None, max_examples=20)
def test_no_step_is_lost(lifetimes: list[int], episodes: int, seed: int) -> None:
    rollouts = [collected(lifetimes, seed + number, episodes) for number in range(2)]
    trials = Trials.of(rollouts)
    assert int(trials.valid.sum()) == sum(rollout.env_steps for rollout in rollouts)
    assert trials.rewards.sum() == sum(rollout.rewards.sum() for rollout in rollouts)


def test_trials_can_be_chosen() -> None:
    trials = Trials.of([collected([1, 3, 9], seed) for seed in range(2)])
    chosen = trials[torch.tensor([4, 0])]
    assert torch.equal(chosen.rewards, trials.rewards[[4, 0]])
    assert chosen.lengths.tolist() == [8, 2]


def test_rollouts_of_different_shapes_make_no_trial() -> None:
    one = made_up_rollout(episodes=3)
    for other in (made_up_rollout(episodes=2), made_up_rollout(tasks=1)):
        with pytest.raises(ValueError, match="the same numbers of tasks and episodes"):
            Trials.of([one, other])


def test_episodes_may_have_different_lengths_in_different_rollouts() -> None:
    # A collection stops where its last episode does.
    one, other = collected([2, 2], 0), collected([2, 4], 1)
    assert (one.rewards.shape[2], other.rewards.shape[2]) == (2, 4)
    assert Trials.of([one, other]).lengths.tolist() == [4, 4, 6, 6]


def test_packing_does_not_change_the_rollout() -> None:
    rollout = collected([1, 3], 0)
    before = replace(rollout, observations=rollout.observations.clone())
    Trials.of([rollout])
    assert torch.equal(rollout.observations, before.observations)
