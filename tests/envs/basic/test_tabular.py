import math

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.basic.tabular import TabularMDP
from metarl.errors import InputError
from metarl.families.family import make_family
from metarl.families.pictures import BLACK, WHITE
from metarl.worlds.vector_env import TaskVectorEnv

FAMILY = TabularMDP()
SMALL = TabularMDP(states=3, actions=2)
# Action 0 leads round the circle 0 -> 1 -> 2 -> 0, action 1 stays.
CIRCLE = torch.stack([torch.eye(3).roll(1, dims=1), torch.eye(3)], 1)
MEANS = torch.tensor([[0.0, 1.0], [10.0, 20.0], [-5.0, 100.0]])


def worlds(count: int, transitions: Tensor = CIRCLE, means: Tensor = MEANS) -> TaskVectorEnv:
    """Return worlds that share one task of three states and two actions."""
    task = TensorDict({"transitions": transitions[None], "means": means[None]}, [1])
    env = TaskVectorEnv(SMALL, count, autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(task.expand(count))
    env.reset(seed=0)
    return env


def states(observations: Tensor) -> list[int]:
    found: list[int] = observations.argmax(-1).tolist()
    return found


def test_the_preset_is_the_published_one() -> None:
    assert make_family("tabular-mdp", "rl2") == TabularMDP(states=10, actions=5, horizon=10)


def test_observations_are_one_hot_and_begin_with_state_0() -> None:
    env = worlds(2)
    assert env.reset()[0].tolist() == [[1.0, 0.0, 0.0]] * 2
    assert env.step(torch.tensor([0, 1]))[0].tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_certain_transitions_are_walked_by_hand() -> None:
    # Round and round, but staying in the third step.
    env = worlds(1)
    assert [states(env.step(torch.tensor([action]))[0]) for action in (0, 0, 1, 0, 0)] == [[1], [2], [2], [0], [1]]


def test_rewards_belong_to_the_state_left_and_the_action_taken() -> None:
    # Means of 2000 worlds: standard error 1/√2000 = 0.022; four of them.
    env = worlds(2000)
    found = []
    for action in (1, 0, 0, 1):
        _, rewards, *_ = env.step(torch.full((2000,), action))
        found.append(rewards.mean().item())
        # Of the deviation: 1/√4000 = 0.016.
        assert rewards.std().item() == pytest.approx(1.0, abs=0.064)
    assert found == pytest.approx([1.0, 0.0, 10.0, 100.0], abs=0.09)


def test_transitions_follow_their_probabilities() -> None:
    # 20,000 draws of (0.2, 0.5, 0.3): standard errors below 0.0036; four of them.
    env = worlds(20_000, torch.tensor([0.2, 0.5, 0.3]).expand(3, 2, 3))
    observations, *_ = env.step(torch.zeros(20_000, dtype=torch.int64))
    torch.testing.assert_close(observations.mean(0), torch.tensor([0.2, 0.5, 0.3]), rtol=0, atol=0.0144)


def test_worlds_have_tasks_and_states_of_their_own() -> None:
    # In world w action a of state s always leads to state (s + a + w), with reward 100 w + 10 s + a, give or take 5.
    world, state, action = (torch.arange(n).view(shape) for n, shape in ((4, (-1, 1, 1)), (10, (-1, 1)), (5, (-1,))))
    tasks = TensorDict(
        {
            "transitions": torch.nn.functional.one_hot((world + state + action) % 10, 10).float(),
            "means": (100 * world + 10 * state + action).float(),
        },
        [4],
    )
    env = TaskVectorEnv(FAMILY, 4, autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(tasks)
    env.reset(seed=0)
    observations, rewards, *_ = env.step(torch.tensor([4, 3, 2, 1]))
    assert states(observations) == [4, 4, 4, 4]
    assert rewards.tolist() == pytest.approx([4, 103, 202, 301], abs=5)
    observations, rewards, *_ = env.step(torch.tensor([0, 1, 2, 3]))
    assert states(observations) == [4, 6, 8, 0]
    assert rewards.tolist() == pytest.approx([40, 141, 242, 343], abs=5)


def test_rewards_and_transitions_are_independent_of_each_other() -> None:
    # Correlation of 20,000 pairs: standard error 0.007; four of them.
    env = worlds(20_000, torch.tensor([0.5, 0.5, 0.0]).expand(3, 2, 3), torch.zeros(3, 2))
    observations, rewards, *_ = env.step(torch.zeros(20_000, dtype=torch.int64))
    assert torch.corrcoef(torch.stack([observations[:, 0], rewards]))[0, 1].abs() < 0.029


def test_episodes_never_terminate() -> None:
    env = worlds(2)
    ends = [env.step(torch.tensor([0, 1]))[2:4] for _ in range(10)]
    assert not any(terminated.any() for terminated, _ in ends)
    assert [truncated.all().item() for _, truncated in ends] == [False] * 9 + [True]


def test_tasks_are_drawn_as_published() -> None:
    # 50,000 means, with standard errors of mean and deviation below 0.0045, and 50,000 rows of probabilities, whose
    # mean square is 2 / (10 · 11), with a standard error below 0.0001, and whose columns have means of 0.1, with one
    # of 0.0904 / √50,000 = 0.0004; four of each.
    tasks = FAMILY.sample_tasks(1000, torch.Generator().manual_seed(0))
    assert tasks["means"].mean().item() == pytest.approx(1.0, abs=0.018)
    assert tasks["means"].std().item() == pytest.approx(1.0, abs=0.018)
    assert tasks["transitions"].square().mean().item() == pytest.approx(2 / 110, abs=0.0004)
    torch.testing.assert_close(tasks["transitions"].mean((0, 1, 2)), torch.full((10,), 0.1), rtol=0, atol=0.0016)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), states=st.integers(1, 12), actions=st.integers(2, 6))
def test_drawn_tasks_are_tasks(seed: int, states: int, actions: int) -> None:
    family = TabularMDP(states=states, actions=actions)
    tasks = family.sample_tasks(1, torch.Generator().manual_seed(seed))
    assert tasks["transitions"].shape == (1, states, actions, states)
    made = family.make_task({key: value[0].numpy() for key, value in tasks.items()})
    assert all(torch.equal(made[key], tasks[key]) for key in tasks.keys())


@settings(deadline=None, max_examples=30)
@given(
    weights=st.lists(st.integers(0, 3), min_size=2, max_size=6).filter(any),
    seed=st.integers(0, 2**32),
)
def test_impossible_transitions_do_not_happen(weights: list[int], seed: int) -> None:
    count = len(weights)
    family = TabularMDP(states=count, actions=2)
    row = torch.tensor(weights, dtype=torch.float32) / sum(weights)
    tasks = TensorDict({"transitions": row.expand(50, count, 2, count), "means": torch.zeros(50, count, 2)}, [50])
    stream = torch.Generator().manual_seed(seed)
    state, _ = family.transition(family.initial_state(tasks, stream), torch.zeros(50, dtype=torch.int64), tasks, stream)
    assert all(weights[reached] > 0 for reached in state["state"].tolist())


def with_row(row: list[float]) -> dict[str, np.ndarray]:
    """Return parameters of a small task with the probabilities of state 1, action 0 replaced."""
    transitions = CIRCLE.clone().numpy()
    transitions[1, 0] = row
    return {"transitions": transitions, "means": MEANS.numpy()}


@pytest.mark.parametrize(("row", "total"), [([0.5, 0.4, 0.0], "0.9"), ([1.0, 1.0, 1.0], "3"), ([0.0, 0.0, 0.0], "0")])
def test_probabilities_that_do_not_sum_to_1_are_refused_in_one_line(row: list[float], total: str) -> None:
    with pytest.raises(InputError) as refusal:
        SMALL.make_task(with_row(row))
    expected = f"the transition probabilities must sum to 1; those of state 1, action 0 sum to {total}"
    assert str(refusal.value) == f"tabular-mdp: {expected}"


@pytest.mark.parametrize("row", [[1.5, -0.5, 0.0], [math.nan, 0.5, 0.5]])
def test_what_is_no_probability_is_refused(row: list[float]) -> None:
    with pytest.raises(InputError, match="tabular-mdp: task parameter transitions"):
        SMALL.make_task(with_row(row))


@pytest.mark.parametrize("mean", [math.inf, -math.inf, math.nan])
def test_means_are_finite(mean: float) -> None:
    with pytest.raises(InputError, match="tabular-mdp: task parameter means"):
        SMALL.make_task({"transitions": CIRCLE.numpy(), "means": np.full((3, 2), mean)})


@pytest.mark.parametrize(("states", "actions"), [(0, 5), (10, 1)])
def test_sizes_that_make_no_sense_are_refused(states: int, actions: int) -> None:
    with pytest.raises(InputError, match=f"needs at least 1 state and 2 actions, not {states} and {actions}"):
        TabularMDP(states=states, actions=actions)


def test_the_picture_shows_means_by_colour_and_frames_the_present_state() -> None:
    # Three columns of 85 pixels, two rows of 128: column 0 means 0 (white) and 1 (pale green).
    task = TensorDict({"transitions": CIRCLE, "means": MEANS}, [])
    picture = SMALL.picture({"state": torch.tensor(1)}, task)
    assert tuple(picture[64, 42]) == WHITE
    red, green, blue = (int(part) for part in picture[192, 42])
    assert green > red == blue
    red, green, blue = (int(part) for part in picture[64, 213])
    assert red > green
    # The frame of column 1 begins at 256 / 3.
    assert tuple(picture[64, 86]) == BLACK
    assert tuple(picture[64, 20]) != BLACK
