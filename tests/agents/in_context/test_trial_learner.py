"""What learners share that remember trials: their inputs, acting, and reading what was recorded."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agents.in_context.memories.memory import MEMORIES
from metarl.agents.in_context.rl2 import Rl2, Rl2Config
from metarl.agents.in_context.step_inputs import StepInputs
from metarl.agents.in_context.trial_state import OpenTrial, Trial, Unknown
from metarl.errors import InputError
from metarl.families.family import TaskFamily, make_family
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.sampling.sampler import Sampler
from tests.agents.language.models import memory_settings
from tests.fakes import EchoFamily, echo_tasks

BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
CPU = torch.device("cpu")
every_memory = pytest.mark.parametrize("memory", list(MEMORIES))


class Watched(Rl2):
    """Keeps the inputs of every step that it acts on, and its working copies."""

    def __init__(self, family: TaskFamily, **settings: Any) -> None:
        config = Rl2Config(**{"hidden_size": 8, "episodes_per_trial": 3, **settings})
        super().__init__(family, config, 1, CPU)
        self.seen: list[Tensor] = []
        self.workings: list[OpenTrial] = []
        self.network.register_forward_hook(lambda _, given, __: self.seen.append(given[0].clone()))

    def open(self, *given: Any) -> OpenTrial:
        self.workings.append(super().open(*given))
        return self.workings[-1]


def echo_learner(**settings: Any) -> Watched:
    return Watched(EchoFamily(), **settings)


def run_trial(learner: Watched, lifetimes: list[int], episodes: int = 2) -> tuple[list[Rollout], list[Any]]:
    """Return the rollouts of three episodes of echo tasks, and the state before each and after the last."""
    tasks = echo_tasks([10.0 * (task + 1) for task in range(len(lifetimes))], lifetimes)
    sampler, rollouts = Sampler(EchoFamily()), []
    states: list[Any] = [learner.begin(len(tasks))]
    for number in range(3):
        rollouts.append(sampler.collect(learner, states[-1], tasks, episodes, seed=number))
        states.append(learner.adapt(states[-1], rollouts[-1]))
    return rollouts, states


def same(one: Trial, other: Trial) -> bool:
    parts = [(one.memory[name], other.memory[name]) for name in one.memory]
    parts += [(getattr(one, name), getattr(other, name)) for name in ("actions", "rewards", "starts")]
    return all(torch.equal(*pair) for pair in parts)


@pytest.mark.parametrize(
    ("observations", "actions", "size"),
    [
        (spaces.Box(0, 1, (3,)), spaces.Discrete(4), 3 + 4 + 2),
        (spaces.Box(0, 1, (2, 5)), BOX, 10 + 2 + 2),
        (spaces.Box(0, 1, ()), BOX, 1 + 2 + 2),
        (spaces.Discrete(6), spaces.Discrete(2), 6 + 2 + 2),
        (spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([4, 2]), 5 + 6 + 2),
        (spaces.Box(0, 255, (9, 9, 3), np.uint8), spaces.Box(0, 1, (2, 2)), 64 + 4 + 2),
    ],
    ids=str,
)
def test_inputs_are_observation_action_reward_and_flag(
    observations: spaces.Space[Any], actions: spaces.Space[Any], size: int
) -> None:
    assert StepInputs(observations, actions).size == size


@pytest.mark.parametrize(
    ("observations", "actions"),
    [(spaces.Text(3), BOX), (BOX, spaces.Text(3))],
    ids=["observation", "action"],
)
def test_other_spaces_are_refused_in_one_line(observations: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
    with pytest.raises(InputError, match=r"no (learner can observe|policy can act in) Text") as refusal:
        StepInputs(observations, actions)
    assert "\n" not in str(refusal.value)


def test_inputs_are_in_their_order() -> None:
    inputs = StepInputs(spaces.Box(-9, 9, (2,)), spaces.Discrete(3))
    found = inputs(torch.tensor([[5.0, -6.0]]), inputs.actions(torch.tensor([2])), torch.tensor([-0.7]), torch.ones(1))
    torch.testing.assert_close(found, torch.tensor([[5.0, -6.0, 0, 0, 1, -0.7, 1]]))


def test_numbers_of_discrete_observations_are_counted_from_where_the_space_begins() -> None:
    inputs = StepInputs(spaces.Discrete(3, start=5), BOX)
    assert inputs.observations(torch.tensor([[5, 7]])).tolist() == [[[1, 0, 0], [0, 0, 1]]]


def test_observations_of_several_axes_are_flattened() -> None:
    inputs = StepInputs(spaces.Box(0, 1, (2, 5)), BOX)
    assert inputs.observations(torch.zeros(3, 4, 2, 5)).shape == (3, 4, 10)


def test_actions_of_a_box_are_those_that_the_world_met() -> None:
    # In units: what lies outside is clipped, by the sampler too.
    assert StepInputs(BOX, BOX).actions(torch.tensor([[5.0, -0.3]])).tolist() == [[1.0, pytest.approx(-0.3)]]


def test_before_the_trial_there_is_no_action_and_no_reward() -> None:
    learner = echo_learner()
    run_trial(learner, [9, 9])
    first = learner.seen[0][:, 0]
    assert first[:, 3:6].tolist() == [[0, 0, 0]] * 4
    assert first[:, 6].tolist() == [1] * 4


def test_then_come_the_last_action_the_raw_reward_and_no_flag() -> None:
    # The reward is the task's identity, 10 or 20.
    learner = echo_learner()
    rollouts, _ = run_trial(learner, [9, 9])
    second = learner.seen[1].view(2, 2, 7)
    torch.testing.assert_close(second[..., :3], rollouts[0].observations[:, :, 1])
    torch.testing.assert_close(second[..., 3:5], rollouts[0].actions[:, :, 0].clamp(-1, 1))
    assert second[..., 5].tolist() == [[10, 10], [20, 20]]
    assert second[..., 6].tolist() == [[0, 0], [0, 0]]


def test_over_an_episodes_end_action_and_reward_are_kept_and_the_flag_is_set() -> None:
    # Four steps of the first episode, then the one that reads it; what follows is the second episode's first step.
    learner = echo_learner()
    rollouts, _ = run_trial(learner, [9, 9])
    begun = learner.seen[5].view(2, 2, 7)
    torch.testing.assert_close(begun[..., :3], rollouts[1].observations[:, :, 0])
    torch.testing.assert_close(begun[..., 3:5], rollouts[0].actions[:, :, -1].clamp(-1, 1))
    assert begun[..., 5].tolist() == [[10, 10], [20, 20]]
    assert begun[..., 6].tolist() == [[1, 1], [1, 1]]


def test_an_episode_that_ended_early_is_followed_by_its_own_last_step() -> None:
    learner = echo_learner()
    rollouts, _ = run_trial(learner, [2, 9])
    begun = learner.seen[5].view(2, 2, 7)
    torch.testing.assert_close(begun[0, :, 3:5], rollouts[0].actions[0, :, 1].clamp(-1, 1))
    assert begun[..., 5].tolist() == [[10, 10], [20, 20]]


@pytest.mark.parametrize("lifetimes", [[9, 9], [1, 3, 9]], ids=str)
def test_a_recorded_trial_has_the_inputs_that_were_acted_on(lifetimes: list[int]) -> None:
    learner = echo_learner()
    rollouts, _ = run_trial(learner, lifetimes)
    trials = Trials.of(rollouts)
    whole = learner.trial_inputs(trials)
    acted = [inputs for inputs in learner.seen if inputs.shape[1] == 1]
    taken = [rollout.rewards.shape[2] for rollout in rollouts]
    assert len(acted) == sum(taken)
    for row in range(2 * len(lifetimes)):
        steps, begins = [], 0
        for rollout, length in zip(rollouts, taken, strict=True):
            alive = int(rollout.valid[row // 2, row % 2].sum())
            steps += [inputs[row, 0] for inputs in acted[begins : begins + alive]]
            begins += length
        torch.testing.assert_close(whole[row, trials.valid[row]], torch.stack(steps))


@every_memory
def test_adapting_remembers_what_acting_remembered(memory: str) -> None:
    # The sampler worked on a copy; the recorded episode leads to the same state, of which the next one is opened.
    learner = echo_learner(**memory_settings(memory))
    _, states = run_trial(learner, [9, 9])
    for opened, state in zip(learner.workings, states[1:], strict=True):
        working = opened.trial
        assert all((value != 0).any() for value in working.memory.values())
        for name, value in working.memory.items():
            torch.testing.assert_close(value, state.memory[name], rtol=1e-4, atol=1e-5)
        assert torch.equal(working.actions, state.actions)
        assert torch.equal(working.rewards, state.rewards)
        assert (working.starts.unique().tolist(), state.starts.unique().tolist()) == ([0], [1])


@every_memory
def test_collecting_leaves_the_callers_state_alone(memory: str) -> None:
    learner = echo_learner(**memory_settings(memory))
    rollouts, states = run_trial(learner, [9, 9])
    state = states[1]
    before = replace(state, memory={name: value.clone() for name, value in state.memory.items()})
    before = replace(before, actions=state.actions.clone(), rewards=state.rewards.clone(), starts=state.starts.clone())
    Sampler(EchoFamily()).collect(learner, state, rollouts[0].tasks, 2, seed=8)
    learner.adapt(state, rollouts[1])
    learner.act(learner.open(state, 2, torch.Generator()), rollouts[0].observations[:, :, 0], torch.Generator())
    assert same(state, before)


@every_memory
def test_a_state_can_be_gone_on_from_again_and_again(memory: str) -> None:
    learner = echo_learner(**memory_settings(memory))
    rollouts, states = run_trial(learner, [9, 9])
    one, other = (
        Sampler(EchoFamily()).collect(learner, states[1], rollouts[0].tasks, 2, seed=8).log_probs for _ in range(2)
    )
    assert torch.equal(one, other)


@every_memory
def test_a_second_episode_continues_from_the_first(memory: str) -> None:
    learner = echo_learner(**memory_settings(memory))
    rollouts, states = run_trial(learner, [9, 9])
    seen = rollouts[0].observations[:, :, 0]
    stream = torch.Generator()
    fresh, later = (learner.act(learner.open(state, 2, stream), seen, stream)[1].tensors()[0] for state in states[:2])
    assert (fresh != later).any(-1).all()


@every_memory
def test_a_fresh_trial_is_as_the_first_ever(memory: str) -> None:
    # After a whole trial, a new one begins where the first one did.
    learner = echo_learner(**memory_settings(memory))
    tasks = echo_tasks([10, 20])
    first, states = run_trial(learner, [1000, 1000])
    assert isinstance(states[0], Unknown)
    again = Sampler(EchoFamily()).collect(learner, learner.begin(2), tasks, 2, seed=0)
    assert torch.equal(again.log_probs, first[0].log_probs)
    opened = learner.open(learner.begin(2), 2, torch.Generator()).trial
    assert not any(value.any() for value in opened.memory.values())
    assert not opened.actions.any()
    assert not opened.rewards.any()
    assert opened.starts.all()


@every_memory
def test_a_working_copy_stays_where_it_is(memory: str) -> None:
    # A captured graph reads and writes it there.
    learner, observations = echo_learner(**memory_settings(memory)), torch.ones(2, 3, 3)
    working = learner.open(learner.begin(2), 3, torch.Generator())
    trial = working.trial
    places = [tensor.data_ptr() for tensor in (*trial.memory.values(), trial.actions, trial.rewards, trial.starts)]
    for _ in range(3):
        actions, _ = learner.act(working, observations, torch.Generator())
        learner.observe(working, actions, torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    now = [*trial.memory.values(), trial.actions, trial.rewards, trial.starts]
    assert [tensor.data_ptr() for tensor in now] == places
    assert all(value.any() for value in trial.memory.values())


def test_trials_of_a_task_do_not_share_what_they_saw() -> None:
    # Another recording of one trial changes what that trial does next, and nothing else.
    learner = echo_learner()
    rollouts, states = run_trial(learner, [9, 9])
    rewards = rollouts[0].rewards.clone()
    rewards[1, 0, 2] += 1.0
    other = learner.adapt(states[0], replace(rollouts[0], rewards=rewards))
    changed = (other.memory["hidden"] != states[1].memory["hidden"]).any(-1)
    assert changed.tolist() == [False, False, True, False]


def test_a_trial_continues_in_as_many_episodes_as_it_began() -> None:
    learner = echo_learner()
    _, states = run_trial(learner, [9, 9])
    with pytest.raises(InputError, match="2 trials of each task need 2 episodes, not 3"):
        learner.open(states[1], 3, torch.Generator())


def test_a_trial_has_an_adaptation_less_than_episodes() -> None:
    learner = echo_learner(episodes_per_trial=5)
    assert (learner.inner_steps, learner.evaluation_steps) == (4, 4)


def test_discrete_actions_are_remembered_as_one_of_k() -> None:
    learner = Watched(make_family("gridnavi", horizon=4))
    tasks = make_family("gridnavi").sample_tasks(2, torch.Generator().manual_seed(0))
    rollout = Sampler(make_family("gridnavi", horizon=4)).collect(learner, learner.begin(2), tasks, 2, seed=0)
    assert learner.seen[1].view(2, 2, 9)[..., 2:7].argmax(-1).tolist() == rollout.actions[:, :, 0].tolist()
    assert learner.seen[1][..., 2:7].sum(-1).unique().tolist() == [1]


def test_building_a_network_leaves_the_global_stream_alone() -> None:
    before = torch.get_rng_state()
    echo_learner()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("episodes", [0, -1])
def test_a_trial_has_episodes(episodes: int) -> None:
    with pytest.raises(InputError, match=f"^episodes_per_trial must be at least 1, not {episodes}$"):
        Rl2Config(episodes_per_trial=episodes)


def test_a_checkpoint_of_another_network_is_refused() -> None:
    one, other = echo_learner(memory="transformer"), echo_learner(memory="transformer", previous_step="no")
    message = r"the checkpoint belongs to another network: memory\.blocks\.0\..* differs; the code"
    with pytest.raises(InputError, match=message):
        one.load_state_dict(other.state_dict())
