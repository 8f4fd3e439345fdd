"""Activations are found by name, and learners use them in all of their networks."""

import dataclasses

import pytest
import torch
from torch import nn

from metarl.errors import InputError
from metarl.learning.learner import LEARNERS
from metarl.networks.activations import ActivationConfig, find_activation
from metarl.run.config import TrainConfig
from tests.runs import tiny

WITH_A_CHOICE = [name for name, learner in LEARNERS.items() if issubclass(learner.config_class, ActivationConfig)]


def halved(inputs: torch.Tensor) -> torch.Tensor:
    return inputs / 2


@pytest.mark.parametrize("name", ["tanh", "relu", "silu", "elu", "torch:sin"])
def test_an_activation_is_found_by_its_name(name: str) -> None:
    inputs = torch.linspace(-2, 2, 5)
    own = {"torch:sin": torch.sin}.get(name) or getattr(torch.nn.functional, name)
    torch.testing.assert_close(find_activation(name)(inputs), own(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sine", "linear", "softmax2d", "torch:cat", "no_such_module:f", "__doc__"])
def test_what_is_no_activation_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"activation"):
        find_activation(name)


def chosen(name: str, activation: str, **settings: str) -> TrainConfig:
    config = tiny(name, "runs/none")
    return dataclasses.replace(config, settings=dataclasses.replace(config.settings, activation=activation, **settings))


@pytest.mark.parametrize("name", WITH_A_CHOICE)
def test_no_network_keeps_its_usual_activation(name: str) -> None:
    memory = {"memory": "transformer"} if hasattr(LEARNERS[name].config_class(), "memory") else {}
    learner = chosen(name, f"{__name__}:halved", **memory).make_learner()
    networks = [value for value in vars(learner).values() if isinstance(value, nn.Module)]
    layers = [layer for network in networks for layer in network.modules()]
    assert not any(isinstance(layer, nn.ReLU | nn.Tanh) for layer in layers)
    functions = [vars(layer)[key] for layer in layers for key in ("function", "_activation") if key in vars(layer)]
    assert set(functions) == {halved}


@pytest.mark.parametrize("name", ["rl2", "dpt"])
def test_an_activation_without_effect_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="activation silu would have no effect: the memory gru has fixed ones"):
        chosen(name, "silu", memory="gru").make_learner()
