"""The same worlds on MuJoCo Warp, on Warp's CPU device."""

from functools import cache
from typing import Any

import pytest
import torch

from metarl.envs.manipulation.engines import SPECS, DeviceEngine
from metarl.envs.manipulation.initial_states import Prototype, prototype
from metarl.envs.manipulation.package import indices
from metarl.envs.manipulation.scene import EnvironmentSpec
from metarl.envs.manipulation.worlds import ManipulationDynamics
from metarl.errors import InputError
from tests.envs.manipulation.theirs import drawn, ours, tasks_of

CPU = torch.device("cpu")


@cache
def specs() -> dict[int, EnvironmentSpec]:
    return {index: SPECS["v2"][name] for name, index in indices().items()}


def prototypes(environment: int) -> Prototype:
    return prototype(environment, specs()[environment].attributes, True, "v2")


def engine() -> DeviceEngine:
    return DeviceEngine(prototypes, specs(), CPU)


@pytest.mark.slow  # Warp compiles collisions of meshes for minutes, once on a machine.
def test_worlds_on_warp_move_as_those_on_the_cpu() -> None:
    names = ["reach-v3", "door-open-v3", "reach-v3", "pick-place-v3"]
    tasks = tasks_of([(name, drawn(name, 1, seed)[0]) for seed, name in enumerate(names)])
    everywhere = torch.ones(len(tasks), dtype=torch.bool)
    worlds = ManipulationDynamics(specs(), prototypes, engine(), len(tasks), CPU)
    worlds.reset(tasks, everywhere, torch.Generator())
    reference, stream = ours(tasks), torch.Generator().manual_seed(0)
    assert torch.equal(worlds.observe(), reference.observe())
    for step in range(20):
        if step == 10:  # A second episode in one of two worlds of an environment.
            for each in (worlds, reference):
                each.reset(tasks, torch.tensor([True, False, False, False]), torch.Generator())
            torch.testing.assert_close(worlds.observe(), reference.observe(), atol=1e-3, rtol=0)
        actions = 2 * torch.rand(len(tasks), 4, generator=stream) - 1
        transition, expected = (each.step(actions, tasks, stream) for each in (worlds, reference))
        torch.testing.assert_close(worlds.observe(), reference.observe(), atol=1e-3, rtol=0)
        torch.testing.assert_close(transition.rewards, expected.rewards, atol=1e-3, rtol=0)
        assert torch.equal(transition.info["success"], expected.info["success"])
    assert not worlds.unstable().any()


def test_what_depends_on_contact_forces_is_refused() -> None:
    message = "has no contact forces, which Meta-World's stick-push-v3 needs; use --device cpu"
    with pytest.raises(InputError, match=message):
        engine().make({indices()["stick-push-v3"]: 2})


def test_a_model_that_warp_does_not_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **settings: Any) -> None:
        raise NotImplementedError("a feature")

    monkeypatch.setattr("mujoco_warp.put_model", refuse)
    message = "^MuJoCo Warp cannot simulate Meta-World's reach-v3: a feature; use --device cpu$"
    with pytest.raises(InputError, match=message):
        engine().make({indices()["reach-v3"]: 2})
