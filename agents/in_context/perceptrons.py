"""Layers of policies and critics: multilayer perceptrons, one or several on the same inputs, such as twin critics."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from metarl.networks.activations import Activation, Elementwise, overwriting
from metarl.networks.mlp import init_mlp


def small_layer(inputs: int, outputs: int, gain: float = 0.01) -> nn.Linear:
    """Return a layer whose initial outputs are near 0: a policy starts near uniform, and a critic near 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def perceptron(sizes: Sequence[int], activation: Elementwise) -> nn.Sequential:
    """Return hidden layers, each followed by the activation; ``sizes`` starts with the inputs."""
    layers = [nn.Sequential(nn.Linear(inputs, outputs), Activation(activation)) for inputs, outputs in pairwise(sizes)]
    return nn.Sequential(*layers)


def perceptron_with_head(sizes: Sequence[int], outputs: int, gain: float, activation: Elementwise) -> nn.Sequential:
    """Return hidden layers and a linear layer of ``outputs`` units, whose initial weights have this ``gain``."""
    return nn.Sequential(perceptron(sizes, activation), small_layer(sizes[-1], outputs, gain))


class Perceptrons(nn.Module):
    """``count`` parallel MLPs.

    Args:
        count: number of MLPs.
        sizes: units of every layer, including inputs and outputs.
        stream: generator of the initial weights.
        activation: between layers.
    """

    def __init__(
        self, count: int, sizes: Sequence[int], stream: torch.Generator, activation: Elementwise = torch.relu
    ) -> None:
        super().__init__()
        self._activation = overwriting(activation)
        drawn = [init_mlp(sizes, stream) for _ in range(count)]
        layers = range(len(sizes) - 1)
        self.weights, self.biases = (
            nn.ParameterList(torch.stack([params[f"{kind}_{layer}"] for params in drawn]) for layer in layers)
            for kind in ("weight", "bias")
        )

    def forward(self, inputs: Tensor, fixed: bool = False) -> Tensor:
        """Return the outputs ``[count, ..., outputs]`` of all MLPs on the same inputs ``[..., inputs]``.

        Args:
            inputs: of all MLPs.
            fixed: whether the MLPs themselves get no gradient.
        """
        hidden = inputs.flatten(0, -2).expand(len(self.weights[0]), -1, -1)
        for layer, pair in enumerate(zip(self.weights, self.biases, strict=True)):
            weight, bias = (each.detach() for each in pair) if fixed else pair
            hidden = torch.baddbmm(bias.unsqueeze(1), hidden if layer == 0 else self._activation(hidden), weight)
        return hidden.view(len(hidden), *inputs.shape[:-1], hidden.shape[-1])
