"""``check_learner`` accepts learners that keep the protocol, and says in one line what is wrong with others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import metarl
from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.learning.learner import LEARNERS, Learner, OpenState, register_learner
from metarl.numerics.distributions import DiagonalGaussian
from metarl.rollouts.rollout import Rollout
from metarl.seeding import generator


@dataclass(frozen=True)
class DriftConfig:
    """Settings of the learner below."""

    learning_rate: float = 0.1
    """Step size."""


class Drift(Learner):
    """Acts by one mean for all observations; adapts by a step towards the best actions, and learns their mean."""

    name: ClassVar[str] = "drift"
    config_class: ClassVar[type] = DriftConfig
    metrics: ClassVar[Mapping[str, str]] = {"mean": "the mean of the actions"}
    inner_steps = 1

    def __init__(self, family: TaskFamily, config: DriftConfig, seed: int, device: torch.device) -> None:
        if not isinstance(family.action_space, spaces.Box):
            raise InputError(f"drift acts in Box spaces, not in {family.action_space}")
        self.config, self.device, self.seed, self.updates = config, device, seed, 0
        self.mean = torch.randn(family.action_space.shape, generator=generator(seed, "drift"))

    def begin(self, num_tasks: int) -> Tensor:
        return self.mean.expand(num_tasks, 1, -1).clone()

    def action_distribution(self, working: OpenState[Tensor], observations: Tensor) -> DiagonalGaussian:
        mean = working.state.expand(*observations.shape[:2], -1)
        return DiagonalGaussian(mean, torch.zeros_like(mean))

    def adapt(self, state: Tensor, rollout: Rollout) -> Tensor:
        return state + 0.1 * self.step(rollout)

    def step(self, rollout: Rollout) -> Tensor:
        """Return the direction ``[N, 1, A]`` of actions with high rewards."""
        weights = (rollout.rewards - rollout.rewards.mean((1, 2), keepdim=True)).unsqueeze(-1)
        return (weights * rollout.actions).mean((1, 2)).unsqueeze(1)

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        self.updates += 1
        noise = torch.randn(self.mean.shape, generator=generator(self.seed, "drift update", self.updates))
        self.mean = self.mean + self.config.learning_rate * (self.step(rollouts[-1]).mean((0, 1)) + noise)
        return {"mean": self.mean.mean().item()}

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "updates": self.updates, "seed": self.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean, self.updates, self.seed = state["mean"].clone(), state["updates"], state["seed"]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Forget, after the test, what it registered."""
    yield
    LEARNERS.pop("drift", None)


def broken(**methods: Any) -> type[Learner]:
    """Register the learner with other methods."""
    return register_learner(type("Broken", (Drift,), methods))


def test_a_learner_that_keeps_the_protocol_passes() -> None:
    register_learner(Drift)
    metarl.check_learner(Drift)
    metarl.check_learner("drift", "navigation-2d", DriftConfig(learning_rate=0.5))


@pytest.mark.parametrize("name", ["random", "dqn"])
def test_learners_of_this_repository_pass(name: str) -> None:
    metarl.check_learner(name)


def adapts_itself(self: Any, state: Tensor, rollout: Rollout) -> Tensor:
    self.mean = self.mean + 1
    return state


def adapts_in_place(self: Any, state: Tensor, rollout: Rollout) -> Tensor:
    return state.add_(1.0)


def spoils_the_rollout(self: Any, state: Tensor, rollout: Rollout) -> Tensor:
    rollout.rewards.zero_()
    return state


def begin_changes(self: Any, num_tasks: int) -> Tensor:
    self.mean = self.mean + 1
    return Drift.begin(self, num_tasks)


def samples_always(self: Any, state: Any, seen: Any, stream: Any, deterministic: bool = False) -> Any:
    return Drift.act(self, state, seen, stream)


def updates_by_luck(self: Any, rollouts: Any) -> dict[str, float]:
    self.mean = torch.randn_like(self.mean)
    return {"mean": 0.0}


def metric_of(value: Any, name: str = "mean") -> Any:
    return lambda self, rollouts: {name: value}


def metric_of_a_moment(self: Any, rollouts: Any) -> dict[str, float]:
    self.updates += 1
    return {"mean": 0.0} if self.updates == 1 else {}


def forgets(self: Any) -> dict[str, Any]:
    return {"mean": self.mean, "updates": 0, "seed": self.seed}


def refuses(message: str, kind: type[Exception] = InputError) -> Any:
    def __init__(self: Any, *_: Any) -> None:
        raise kind(message)

    return __init__


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"inner_steps": None}, "drift: has the inner_steps None; set it to an integer"),
    ({"config_class": dict}, "config_class is not a frozen dataclass"),
    ({"__init__": refuses("no", KeyError)}, "constructing it for navigation-2d failed .*raise metarl.InputError"),
    (
        {"__init__": refuses("not\nthis")},
        "drift: refuses navigation-2d in several lines; state in one line which spaces",
    ),
    ({"__init__": refuses("not this")}, r"refuses every family .*navigation-2d: not this; gridnavi: not this\); name"),
    ({"begin": lambda self, num_tasks: 1 / 0}, "begin, and acting in its state failed .*ZeroDivisionError"),
    ({"act": samples_always}, "deterministic actions are not the distribution's mode; return"),
    ({"adapt": lambda self, state, rollout: 1 / 0}, "drift: adapt failed .*ZeroDivisionError"),
    ({"adapt": adapts_itself}, r"adapt changes the learner: state_dict\(\)\['mean'\]; return a new state instead"),
    ({"adapt": adapts_in_place}, "after adapt, acting in the state before it is different: .*; return a new state"),
    ({"adapt": spoils_the_rollout}, r"adapt changes the rollout it is given: \['rewards'\]; copy"),
    (
        {"begin": begin_changes},
        r"evaluation changes the learner: state_dict\(\)\['mean'\]; write to the learner in upd",
    ),
    ({"update": updates_by_luck}, r"the same seed gives other numbers: \['mean'\]; draw everything from"),
    ({"update": metric_of(float("nan"))}, "the metric mean is nan; return a finite Python float, or raise"),
    ({"update": metric_of(torch.zeros(()))}, r"the metric mean is tensor\(0.\); return a finite Python float"),
    ({"update": metric_of(1.0, "loss")}, r"update returns \['loss'\], which metrics does not name; describe them"),
    ({"update": lambda self, rollouts: None}, "update returns no metrics; return a dict"),
    ({"update": metric_of_a_moment}, "update returns no metrics; return a dict"),
    ({"state_dict": forgets}, "a resumed run ends elsewhere than an uninterrupted one: .*; put everything"),
    ({"state_dict": lambda self: {"mean": self.mean, "self": DriftConfig()}}, "and reading the run back failed"),
]


@pytest.mark.parametrize(("methods", "message"), PROBLEMS, ids=[message[:40] for _, message in PROBLEMS])
def test_what_is_wrong_is_said_in_one_line(methods: dict[str, Any], message: str) -> None:
    learner = broken(**methods)
    with pytest.raises(InputError, match=message) as caught:
        metarl.check_learner(learner)
    assert "\n" not in str(caught.value)


def test_a_class_has_to_be_registered() -> None:
    with pytest.raises(InputError, match=r"^Drift: is not registered; decorate it with @register_learner"):
        metarl.check_learner(Drift)
    with pytest.raises(InputError, match=r"^int: is not a Learner; derive it from"):
        metarl.check_learner(int)  # type: ignore[arg-type]


def test_an_unknown_name_is_refused_with_its_nearest() -> None:
    with pytest.raises(InputError, match=r"no learner is called 'randon'; did you mean random"):
        metarl.check_learner("randon")
