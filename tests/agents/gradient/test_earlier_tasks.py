"""What MAML carries over when its training task changes."""

from typing import Any

import pytest
import torch
from tensordict import TensorDict

from metarl.agents.gradient.earlier_tasks import EarlierTasks, EarlierTasksConfig
from metarl.agents.gradient.gradient_learner import GradientLearner
from metarl.errors import InputError, RunError
from metarl.learning.learner import LEARNERS
from metarl.learning.trust_region import TrustRegionConfig
from metarl.numerics.params import flatten, leaf, names
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from tests.runs import copy_learner, learner_and_rollouts, one_task, same

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"hidden_sizes": (8,), "inner_lr": 0.5}
NAMES = {"maml-trpo": {"trust_region": TrustRegionConfig(max_kl=0.1)}, "maml-ppo": {"outer_lr": 0.05}}
NAMES["maml-vpg"] = {"outer_lr": 0.05}
every_pair = pytest.mark.parametrize(("name", "method"), [(name, each) for name in NAMES for each in ("replay", "ewc")])


def made(name: str, method: str, seed: int = 1, **more: Any) -> tuple[GradientLearner, Sampler]:
    settings = LEARNERS[name].config_class(**SMALL, **NAMES[name], continual=method, **more)
    config = TrainConfig(name, "gridnavi", RunConfig(horizon=8, seed=seed), settings)
    learner = config.make_learner()
    assert isinstance(learner, GradientLearner)
    return learner, Sampler(config.make_family())


def collected(learner: GradientLearner, sampler: Sampler, goal: tuple[int, int], seed: int = 0) -> list[Rollout]:
    """Return one iteration's rollouts of one task."""
    tasks = TensorDict({"goal": torch.tensor([goal])}, [1])
    first = sampler.collect(learner, learner.begin(1), tasks, 10, seed)
    return [first, sampler.collect(learner, learner.adapt(learner.begin(1), first), tasks, 10, seed + 1)]


def met(name: str, method: str, updates: int = 4, **more: Any) -> tuple[GradientLearner, Sampler]:
    """Return a learner that has met one task twice, and then another one."""
    learner, sampler = made(name, method, **more)
    for number, goal in enumerate([(2, 1)] * 2 + [(0, 4)] * updates):
        learner.update(collected(learner, sampler, goal, 2 * number))
    return learner, sampler


def moved(learner: GradientLearner, earlier: EarlierTasks) -> float:
    """Return how far a learner's policies are from those that were recorded in earlier tasks."""
    return float(torch.as_tensor(earlier.penalty(learner, leaf(learner.params))).detach())


@pytest.mark.parametrize("name", NAMES)
def test_replay_holds_the_policies_of_earlier_tasks(name: str) -> None:
    (held, _), (free, _) = met(name, "replay", replay_weight=10.0), met(name, "replay", replay_weight=0.0)
    assert [len(rounds) for rounds in held.earlier.recorded] == [2]
    judge, _ = met(name, "replay", updates=1, replay_weight=1.0)
    assert moved(held, judge.earlier) < 0.7 * moved(free, judge.earlier)


def test_what_is_recorded_is_near_the_policy_that_was_recorded() -> None:
    learner, sampler = made("maml-vpg", "replay")
    rollouts = collected(learner, sampler, (2, 1))
    learner.earlier = learner.earlier.met(learner, rollouts)
    assert learner.earlier.penalty(learner, leaf(learner.params)) == 0.0  # the present task is not an earlier one
    learner.earlier = learner.earlier.met(learner, collected(learner, sampler, (0, 4)))
    assert moved(learner, learner.earlier) == pytest.approx(0.0, abs=1e-6)
    learner.params = learner.params.apply(lambda value: value + 0.3)
    assert moved(learner, learner.earlier) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_elastic_weight_consolidation_holds_what_mattered(name: str) -> None:
    (held, _), (free, _) = met(name, "ewc", ewc_weight=1e3), met(name, "ewc", ewc_weight=0.0)
    before, _ = met(name, "ewc", updates=0)

    def distance(learner: GradientLearner) -> float:
        weights, place = held.earlier.anchor.importance, before.params
        return sum(
            float((weight * (learner.params[key] - place[key]).square()).sum()) for key, weight in weights.items()
        )

    assert distance(held) < 0.5 * distance(free)


@pytest.mark.parametrize("family", ["gridnavi", "navigation-2d"])
def test_the_information_is_the_diagonal_of_the_curvature_of_adapted_policies(family: str) -> None:
    learner, rollouts = learner_and_rollouts(family, tasks=1, episodes=40, horizon=6, continual="ewc")
    learner.earlier = learner.earlier.met(learner, [one_task(each, 0) for each in rollouts])
    support, query = learner.earlier.latest
    product = learner.curvature([support], query)
    diagonal = torch.stack([product(unit) @ unit for unit in torch.eye(flatten(learner.params).numel()).double()])
    importance = learner.earlier._consolidated_anchor(learner).importance
    found = flatten(TensorDict({name: importance[name] for name in names(learner.params)}))
    assert found.sum() == pytest.approx(float(diagonal.sum()), rel=0.2)  # of 240 samples
    assert torch.corrcoef(torch.stack([found, diagonal]))[0, 1] > 0.9


@every_pair
def test_a_restored_learner_goes_on_to_the_same_numbers(name: str, method: str) -> None:
    learner, sampler = met(name, method, updates=1)
    other, _ = made(name, method, seed=1)
    copy_learner(learner, other)
    for goal in ((0, 4), (3, 3)):
        rollouts = collected(learner, sampler, goal)
        assert learner.update(rollouts) == other.update(rollouts)
    assert same(learner.state_dict(), other.state_dict())


@every_pair
def test_an_update_that_is_not_finite_changes_nothing(name: str, method: str) -> None:
    learner, sampler = met(name, method, updates=1)
    support, query = collected(learner, sampler, (3, 3))
    before = learner.state_dict()
    with pytest.raises(RunError, match="NaN or infinity in the meta-gradient"):
        learner.update([support, query.map(lambda value: value * torch.nan if value is query.rewards else value)])
    assert same(before, learner.state_dict())


def test_with_fine_tuning_nothing_is_kept() -> None:
    earlier = EarlierTasks(EarlierTasksConfig(), 1, CPU)
    learner, sampler = met("maml-vpg", "fine-tuning", updates=1)
    assert learner.earlier.met(learner, collected(learner, sampler, (2, 1))) is learner.earlier
    assert earlier.state_dict() == {}
    assert set(learner.state_dict()) == {"params", "moments", "updates"}


def test_several_tasks_at_once_are_refused() -> None:
    learner, rollouts = learner_and_rollouts(tasks=2, continual="replay")
    with pytest.raises(InputError, match="continual replay meets one task at a time: train with --task-source stream"):
        learner.update(rollouts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"continual": "none"}, "continual must be one of fine-tuning, replay, ewc, not 'none'"),
        ({"replay_weight": -1.0}, "replay_weight must be 0 or more, not -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        LEARNERS["maml-vpg"].config_class(**settings)
