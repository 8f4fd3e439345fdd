"""Optimisers are found by name, and train learners that resume as if they had not stopped."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metarl.errors import InputError
from metarl.learning.learner import LEARNERS
from metarl.networks.optimizers import OptimizerConfig, make_optimizer, moments, restore_moments, torch_optimizers
from metarl.run.directory import RunDirectory
from metarl.training.train import resume, train
from tests.runs import numbers, tiny

WITH_A_CHOICE = [name for name, learner in LEARNERS.items() if issubclass(learner.config_class, OptimizerConfig)]


@pytest.mark.parametrize("name", [*torch_optimizers(), "torch.optim:Adam"])
def test_every_optimizer_descends(name: str) -> None:
    point = torch.ones(2, 2, requires_grad=True)
    optimizer = make_optimizer(name, [point], 0.01)
    point.square().sum().backward()
    optimizer.step()
    assert point.square().sum() < 4


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_arguments_of_adam_are_its_own(name: str) -> None:
    optimizer = make_optimizer(name, [torch.ones(1, requires_grad=True)], 0.01, eps=1e-5)
    assert (optimizer.defaults["eps"] == 1e-5) == (name != "rmsprop")


def test_weight_decay_is_the_optimizers_own_unless_it_is_given() -> None:
    point = [torch.ones(1, requires_grad=True)]
    decays = [make_optimizer("adamw", point, 0.01, decay).defaults["weight_decay"] for decay in (None, 0.0, 0.5)]
    assert decays == [torch.optim.AdamW(point).defaults["weight_decay"], 0.0, 0.5]
    assert make_optimizer("rprop", point, 0.01, 0.0).defaults["lr"] == 0.01  # it has none


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adm", "no optimiser is called 'adm'; did you mean adam"),
        ("lbfgs", "no optimiser is called 'lbfgs'"),
        ("torch:sin", "torch:sin is not a torch.optim.Optimizer"),
        ("torch.optim:Optimizer", "cannot be made with lr alone"),
    ],
)
def test_what_is_no_optimizer_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_optimizer(name, [torch.ones(1, requires_grad=True)], 0.1)


def test_a_setting_that_an_optimizer_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match=r"rprop cannot be made with lr, weight_decay alone \(.*weight_decay"):
        make_optimizer("rprop", [torch.ones(1, requires_grad=True)], 0.1, 0.5)


def step(optimizer: torch.optim.Optimizer, point: Tensor) -> None:
    point.grad = point.detach().clone()
    optimizer.step()


def test_moments_are_a_copy_that_continues_to_the_same_numbers() -> None:
    points = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    first, second = (make_optimizer("adam", [point], 0.1) for point in points)
    step(first, points[0])
    remembered = moments(first)
    kept = remembered[0]["exp_avg"].clone()
    restore_moments(second, remembered)
    with torch.no_grad():
        points[1].copy_(points[0])
    for optimizer, point in zip((first, second), points, strict=True):
        step(optimizer, point)
    assert torch.equal(points[0], points[1])
    assert torch.equal(remembered[0]["exp_avg"], kept)
    assert remembered.keys() == torch.optim.Adam([points[0]]).state_dict()["state"].keys() | {0}


@pytest.mark.parametrize("learner", [name for name in WITH_A_CHOICE if not LEARNERS[name].needs_recorded])
def test_a_run_with_it_resumes_to_the_same_numbers(learner: str, tmp_path: Path) -> None:
    def run(place: str, iterations: int, optimizer: str = "rmsprop") -> Path:
        config = tiny(learner, tmp_path / place, iterations=iterations)
        return train(
            dataclasses.replace(config, settings=dataclasses.replace(config.settings, optimizer=optimizer))
        ).path

    through, stopped, other = run("through", 2), run("stopped", 1), run("other", 2, "sgd")
    resume(stopped, 2)
    assert numbers(stopped) == numbers(through) != numbers(other)


class Counting(torch.optim.Optimizer):
    """Descends ever more slowly; it counts in plain numbers, of each parameter and of all."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr, "calls": 0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        group["calls"] += 1
        group["spread"] = group.get("spread", 1.0) / 2
        for value in group["params"]:
            if value.grad is not None:
                own = self.state[value]
                own["step"] = own.get("step", 0) + 1
                value.data -= group["lr"] * group["spread"] / (own["step"] + group["calls"]) * value.grad


@pytest.mark.parametrize("learner", ["maml-ppo", "rl2", "pearl", "amago"])
def test_an_optimizer_that_counts_in_plain_numbers_resumes_to_the_same_numbers(learner: str, tmp_path: Path) -> None:
    def run(place: str, iterations: int) -> Path:
        config = tiny(learner, tmp_path / place, iterations=iterations)
        own = dataclasses.replace(config.settings, optimizer=f"{Counting.__module__}:Counting")
        return train(dataclasses.replace(config, settings=own)).path

    through, stopped = run("through", 3), run("stopped", 1)
    resume(stopped, 3)
    assert numbers(stopped) == numbers(through)
    contents = [RunDirectory(path).load_checkpoint()["learner"] for path in (stopped, through)]
    assert find_difference(*contents) is None


def find_difference(one: Any, other: Any, path: str = "") -> str | None:
    """Return where two nested states differ."""
    if isinstance(one, dict):
        pairs = [(key, one[key], other[key]) for key in one] if one.keys() == other.keys() else [("keys", 0, 1)]
    elif isinstance(one, list):
        pairs = list(zip(range(len(one)), one, other, strict=True))
    else:
        same = torch.equal(one, other) if isinstance(one, Tensor) else one == other
        return None if same else path
    return next((found for key, *both in pairs if (found := find_difference(*both, f"{path}/{key}"))), None)
