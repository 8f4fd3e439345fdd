"""``check_family`` accepts families that keep the contract, and says in one line what is wrong with others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

import metarl
from metarl.envs.wrapped.gymnasium_adapter import GymnasiumFamily
from metarl.errors import InputError
from metarl.families.family import FAMILIES, Dynamics, TaskFamily, Transition
from metarl.families.tensor_family import State, TensorFamily, uniform
from metarl.families.views import InformedFamily


@dataclass(frozen=True)
class Line(TensorFamily):
    """A point on a line, started at random, that is rewarded for being near a goal."""

    horizon: int = 7

    name: ClassVar[str] = "line"
    env_id: ClassVar[str] = "test/Line-v0"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"only": {}}

    @property
    def observation_space(self) -> spaces.Space[Any]:
        return spaces.Box(-2.0, 2.0, (1,), np.float32)

    @property
    def action_space(self) -> spaces.Space[Any]:
        return spaces.Box(-1.0, 1.0, (1,), np.float32)

    @property
    def task_space(self) -> spaces.Dict:
        return spaces.Dict({"goal": spaces.Box(-1.0, 1.0, (), np.float32)})

    def sample_tasks(self, count: int, generator: torch.Generator) -> TensorDict:
        return TensorDict({"goal": uniform(generator, (count,), -1.0, 1.0)}, [count])

    def initial_state(self, tasks: TensorDict, generator: torch.Generator) -> State:
        return {"place": uniform(generator, (len(tasks), 1), -1.0, 1.0)}

    def transition(
        self, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator
    ) -> tuple[State, Transition]:
        place = (state["place"] + 0.1 * actions).clamp(-2, 2)
        distance = (place[:, 0] - tasks["goal"]).abs()
        return {"place": place}, Transition(-distance, distance < 0, {"distance": distance})

    def observation(self, state: State) -> Tensor:
        return state["place"]


def test_a_family_that_keeps_the_contract_passes() -> None:
    metarl.check_family(Line())


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(2)])
def test_actions_may_be_of_any_kind_that_policies_support(space: spaces.Space[Any]) -> None:
    def transition(self: Any, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Any:
        first = actions.reshape(len(actions), -1)[:, :1]
        return Line.transition(self, state, first.float(), tasks, generator)

    metarl.check_family(broken(action_space=property(lambda self: space), transition=transition))


@pytest.mark.parametrize("name", ["bandit", "gridnavi", "key-and-door", "navigation-2d", "cartpole-params", "ant-dir"])
def test_families_of_this_repository_pass(name: str) -> None:
    metarl.check_family(name)
    metarl.check_family(InformedFamily(metarl.make_family(name)))


def test_a_family_without_a_name_of_its_own_passes() -> None:
    task_space = spaces.Dict({"gravity": spaces.Box(5.0, 15.0, (), np.float32)})
    metarl.check_family(GymnasiumFamily("CartPole-v1", task_space, horizon=5))


class SilentWorlds(Dynamics):
    """The worlds of another family, spoilt by ``spoil`` in one respect."""

    def __init__(self, worlds: Dynamics, spoil: str) -> None:
        self.worlds, self.spoil, self.seen = worlds, spoil, torch.zeros(3, 1)

    def reset(self, tasks: TensorDict, mask: Tensor, generator: torch.Generator) -> None:
        everywhere = torch.ones_like(mask)
        self.worlds.reset(tasks, everywhere if self.spoil == "mask" else mask, generator)

    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        return self.worlds.step(actions, tasks, generator)

    def observe(self) -> Tensor:
        if self.spoil == "memory":
            return self.seen.copy_(self.worlds.observe())
        return self.worlds.observe()


@dataclass(frozen=True)
class Spoilt(Line):
    """A family whose worlds are spoilt."""

    spoil: str = "mask"

    def dynamics(self, num_envs: int, device: torch.device) -> Dynamics:
        return SilentWorlds(super().dynamics(num_envs, device), self.spoil)


def broken(**methods: Any) -> TaskFamily:
    """Return the family with other methods."""
    return dataclass(frozen=True)(type("Broken", (Line,), {"__annotations__": {}, **methods}))()  # type: ignore[misc]


def drawn(low: float = -1.0, high: float = 1.0, dtype: torch.dtype = torch.float32, key: str = "goal") -> Any:
    def sample_tasks(self: Any, count: int, generator: torch.Generator) -> TensorDict:
        return TensorDict({key: uniform(generator, (count,), low, high).to(dtype)}, [count])

    return sample_tasks


def globally(self: Any, count: int, generator: torch.Generator) -> TensorDict:
    return TensorDict({"goal": torch.rand(count)}, [count])


def of_few(self: Any, count: int, generator: torch.Generator) -> TensorDict:
    return TensorDict({"goal": torch.randint(2, (count,), generator=generator).float()}, [count])


def outcome(**changes: Any) -> Any:
    """Return a transition whose outcome differs in some entries from the family's."""

    def transition(self: Any, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Any:
        following, given = Line.transition(self, state, actions, tasks, generator)
        return following, given._replace(**{key: change(given) for key, change in changes.items()})

    return transition


def own_luck(self: Any, state: State, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Any:
    return Line.transition(self, state, actions + torch.rand(1), tasks, generator)


PROBLEMS: list[tuple[TaskFamily, str]] = [
    (Line(horizon=0), "has the horizon 0; add a field horizon, an integer of at least 1"),
    (broken(action_space=property(lambda self: spaces.Text(2))), "no policy can act in Text.*; use a Box, Discrete"),
    (broken(observation_space=property(lambda self: None)), "observation_space is None; return a gymnasium.spaces"),
    (broken(task_space=property(lambda self: spaces.Dict())), "task_space names no parameter"),
    (broken(sample_tasks=globally), "sample_tasks draws from the global stream of torch or NumPy; draw everything"),
    (broken(sample_tasks=drawn(high=5.0)), r"sample_tasks returns goal = .* outside Box\(-1.0, 1.0.*; widen the task"),
    (broken(sample_tasks=drawn(dtype=torch.float64)), "returns goal as torch.float64 .*; make it torch.float32"),
    (broken(sample_tasks=drawn(key="gaol")), r"returns the parameters \['gaol'\]; the task space has \['goal'\]"),
    (broken(sample_tasks=drawn(high=-1.0)), "all of 200 sampled tasks are the same; draw everything"),
    (broken(sample_tasks=lambda self, count, generator: None), "sample_tasks returns no TensorDict"),
    (broken(sample_tasks=lambda self, count, generator: Line().sample_tasks(3, generator)), "returns 3 tasks of 200"),
    (broken(sample_tasks=of_few), "training and held-out tasks share 2 tasks; list the tasks in all_tasks"),
    (
        broken(part_of=lambda self, tasks, seed: torch.ones(len(tasks))),
        r"part_of returns no parts; return int64 \[200\]",
    ),
    (broken(own_split=lambda self: {"train": None}), r"own_split has the parts \['train'\]"),
    (broken(transition=outcome(rewards=lambda given: given.rewards.double())), "step's rewards is torch.float64"),
    (broken(transition=outcome(rewards=lambda given: given.rewards[:, None])), r"rewards is torch.float32 \[3, 1\]"),
    (broken(transition=outcome(rewards=lambda given: given.rewards / 0)), "a reward is NaN or infinite"),
    (broken(transition=outcome(terminated=lambda given: given.rewards)), "step's terminated is torch.float32"),
    (broken(transition=outcome(truncated=lambda given: given.rewards)), "step's truncated is torch.float32"),
    (
        broken(transition=outcome(info=lambda given: {"one": torch.ones(())})),
        r"info 'one' of step is .* \[\]; return a",
    ),
    (broken(transition=lambda *_: 1 / 0), "step failed .*ZeroDivisionError"),
    (broken(transition=own_luck), "the same seed and actions give another episode; draw everything from the generator"),
    (broken(observation=lambda self, state: state["place"] + 9), "observe after reset returns .* outside Box"),
    (broken(observation=lambda self, state: state["place"].double()), "observe after reset is torch.float64"),
    (broken(observation=lambda self, state: state["place"] / 0), "returns NaN or infinity; keep the state finite"),
    (Spoilt(spoil="mask"), "reset changes worlds outside its mask; change a world's state only where the mask is true"),
    (Spoilt(spoil="memory"), "a step overwrites the observations before it; return memory of its own in observe"),
]


@pytest.mark.parametrize(("family", "message"), PROBLEMS, ids=[message[:40] for _, message in PROBLEMS])
def test_what_is_wrong_is_said_in_one_line(family: TaskFamily, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        metarl.check_family(family)
    assert "\n" not in str(caught.value)


@pytest.fixture
def registered() -> Iterator[type[Line]]:
    """Register a family under a name, for the time of a test."""
    FAMILIES["line"] = Line
    yield Line
    del FAMILIES["line"]


def test_a_registered_family_is_checked_by_name_and_by_class(registered: type[Line]) -> None:
    metarl.check_family("line")
    metarl.check_family(registered)


def test_its_names_and_presets_are_checked(registered: type[Line], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "presets", {"only": {"speed": 3}})
    with pytest.raises(InputError, match=r"^line: the preset only sets \['speed'\], not fields; use \['horizon'\]$"):
        metarl.check_family(Line())
    monkeypatch.setattr(Line, "presets", {})
    with pytest.raises(InputError, match="line: has no preset"):
        metarl.check_family(Line())


def test_a_class_has_to_be_registered() -> None:
    with pytest.raises(InputError, match=r"^Line: is not registered; decorate the class with @register_family"):
        metarl.check_family(Line)
    with pytest.raises(InputError, match=r"^int: is not a TaskFamily"):
        metarl.check_family(int)  # type: ignore[arg-type]
