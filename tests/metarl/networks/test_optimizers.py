"""Optimisers are found by name, and train learners that resume as if they had not stopped."""

from pathlib import Path

import pytest
import torch

from metarl.agents.gradient.maml_ppo import MamlPpoConfig
from metarl.agents.in_context.rl2 import Rl2Config
from metarl.errors import InputError
from metarl.networks.optimizers import make_optimizer, torch_optimizers
from metarl.run.config import RunConfig, TrainConfig
from metarl.training.train import resume, train
from tests.runs import numbers

SETTINGS = {
    "maml-ppo": lambda name: MamlPpoConfig(hidden_sizes=(4,), epochs=2, optimizer=name),
    "rl2": lambda name: Rl2Config(hidden_size=4, epochs=1, minibatches=1, optimizer=name),
}


@pytest.mark.parametrize("name", [*torch_optimizers(), "torch.optim:Adam"])
def test_every_optimizer_descends(name: str) -> None:
    point = torch.ones(2, 2, requires_grad=True)
    optimizer = make_optimizer(name, [point], 0.01)
    point.square().sum().backward()
    optimizer.step()
    assert point.square().sum() < 4


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_arguments_of_adam_are_its_own(name: str) -> None:
    optimizer = make_optimizer(name, [torch.ones(1, requires_grad=True)], 0.01, eps=1e-5)
    assert (optimizer.defaults["eps"] == 1e-5) == (name == "adam")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adm", "no optimiser is called 'adm'; did you mean adam"),
        ("lbfgs", "no optimiser is called 'lbfgs'"),
        ("torch:sin", "torch:sin is no torch.optim.Optimizer"),
        ("torch.optim:Optimizer", "cannot be made with parameters and lr alone"),
    ],
)
def test_what_is_no_optimizer_is_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_optimizer(name, [torch.ones(1, requires_grad=True)], 0.1)


@pytest.mark.parametrize("learner", SETTINGS)
@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_a_run_with_it_resumes_to_the_same_numbers(learner: str, name: str, tmp_path: Path) -> None:
    def run(place: str, iterations: int) -> Path:
        settings = RunConfig(
            iterations=iterations, tasks_per_batch=2, episodes_per_task=2, track="disabled", out=str(tmp_path / place)
        )
        return train(TrainConfig(learner, "bandit", settings, SETTINGS[learner](name))).path

    through, stopped = run("through", 3), run("stopped", 2)
    resume(stopped, 3)
    assert numbers(stopped) == numbers(through)
