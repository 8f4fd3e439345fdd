import math

import pytest
import torch
from tensordict import TensorDict

from metarl.envs.locomotion.directions_and_goals import AntDir, AntGoal, HalfCheetahDir, Heading, HumanoidDir
from metarl.errors import InputError
from metarl.families.family import TaskFamily, make_family
from metarl.families.splits import PARTS, TaskSplit
from tests.envs.robots import dynamics, worlds

TWO_TASKS: list[TaskFamily] = [HalfCheetahDir(), AntDir(opposite=True)]


def total(terms: dict[str, torch.Tensor]) -> list[float]:
    found = sum(value for key, value in terms.items() if key.startswith("reward_"))
    assert isinstance(found, torch.Tensor)
    return found.tolist()


def test_a_cheetah_is_rewarded_for_speed_in_its_direction() -> None:
    tasks = TensorDict({"direction": torch.tensor([1.0, -1.0])}, [2])
    velocity = torch.full((2, 1), 1.5, dtype=torch.float64)
    terms = HalfCheetahDir().reward_terms(velocity, torch.zeros(2, 9), torch.full((2, 6), 0.5), tasks)
    assert total(terms) == pytest.approx([1.5 - 0.05 * 1.5, -1.5 - 0.05 * 1.5])


@pytest.mark.parametrize(
    ("family", "heading", "expected"),
    [  # v = (3, 4); |a|² = 8 or 17 at a = 1.
        (AntDir(), 0.0, 3 - 0.5 * 8 + 1),
        (AntDir(), math.pi / 2, 4 - 0.5 * 8 + 1),
        (AntDir(), math.pi, -3 - 0.5 * 8 + 1),
        (AntDir(), math.atan2(4, 3), 5 - 0.5 * 8 + 1),
        (make_family("ant-dir", "maml"), math.pi, -3 - 0.5 * 8 + 0.05),
        (HumanoidDir(), math.pi / 2, 0.25 * 4 - 0.1 * 17 + 5),
    ],
)
def test_speed_along_the_heading(family: Heading, heading: float, expected: float) -> None:
    tasks = TensorDict({"heading": torch.tensor([heading])}, [1])
    actions = torch.ones(1, family.model.nu)
    velocity = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    terms = family.reward_terms(velocity, torch.zeros(1, family.model.nq), actions, tasks)
    assert total(terms) == pytest.approx([expected], abs=1e-5)


def test_headings_are_angles_and_not_signs() -> None:
    # VariBAD's published code reads +1 and -1 as radians; forward and backward are 0 and π.
    tasks = AntDir(opposite=True).all_tasks()
    assert tasks is not None
    assert tasks["heading"].tolist() == pytest.approx([0, math.pi])


def test_any_heading_is_drawn() -> None:
    drawn = AntDir().sample_tasks(4000, torch.Generator().manual_seed(0))["heading"]
    counts = torch.histc(drawn, 8, 0, 2 * math.pi)
    # 500 in each eighth, with a deviation of 21; five of them.
    assert (counts - 500).abs().max() < 105


@pytest.mark.parametrize("family", TWO_TASKS)
def test_both_tasks_are_drawn(family: TaskFamily) -> None:
    (values,) = family.sample_tasks(1000, torch.Generator().manual_seed(0)).values()
    _, counts = values.unique(return_counts=True)
    assert counts.tolist() == pytest.approx([500, 500], abs=80)  # five deviations


@pytest.mark.parametrize("family", TWO_TASKS)
@pytest.mark.parametrize("part", PARTS)
def test_two_tasks_are_in_every_part(family: TaskFamily, part: str) -> None:
    split, tasks = TaskSplit(family), family.all_tasks()
    assert tasks is not None
    assert (split.held_out_tasks(part, 40) == tasks).all()  # type: ignore[arg-type]


def test_a_third_direction_is_refused() -> None:
    with pytest.raises(InputError, match="half-cheetah-dir: there is no task"):
        HalfCheetahDir().make_task({"direction": 0.5})


def test_goals_are_uniform_in_the_disc() -> None:
    goals = AntGoal().sample_tasks(4000, torch.Generator().manual_seed(0))["goal"]
    distances = goals.norm(dim=-1)
    assert distances.max() <= 3.0
    # A quarter of the disc lies within half its radius; the standard error is 0.7 %, five of them.
    assert (distances < 1.5).float().mean().item() == pytest.approx(0.25, abs=0.035)
    assert goals.mean(0).abs().max() < 0.12  # deviation 1.5 / √4000 = 0.024; five of them


def test_an_ant_is_rewarded_for_being_near_its_goal() -> None:
    tasks = TensorDict({"goal": torch.tensor([[1.0, -2.0]])}, [1])
    qpos = torch.zeros(1, 15, dtype=torch.float64)
    qpos[0, :2] = torch.tensor([0.5, 0.5])
    terms = AntGoal().reward_terms(torch.zeros(1, 2), qpos, torch.ones(1, 8), tasks)
    assert total(terms) == pytest.approx([-0.5 - 2.5 - 0.1 * 8])


def test_an_ant_sees_where_it_is() -> None:
    env = worlds(AntGoal(), AntGoal().sample_tasks(2, torch.Generator().manual_seed(0)))
    observations, *_ = env.step(torch.zeros(2, 8))
    assert torch.equal(observations[:, :15], dynamics(env).simulation.qpos.float())


def test_an_ant_on_its_way_never_terminates() -> None:
    assert not AntGoal().terminated(torch.full((1, 15), -9.0), torch.zeros(1, 14)).any()


@pytest.mark.parametrize("goal", [[3.0, 3.0], [2.2, -2.2]])
def test_a_goal_in_the_square_but_not_in_the_disc_is_refused(goal: list[float]) -> None:
    with pytest.raises(InputError, match=r"ant-goal: task parameter goal = .* lies outside radius 3\.0"):
        AntGoal().make_task({"goal": goal})


def test_an_empty_disc_is_refused() -> None:
    with pytest.raises(InputError, match="the radius of the goals must be positive, not 0"):
        AntGoal(radius=0)
