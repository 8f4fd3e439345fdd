"""Multilayer perceptrons as functions of parameters that may differ from task to task."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.networks import compiled_mlp
from metarl.networks.activations import tanh


def init_mlp(sizes: Sequence[int], generator: torch.Generator) -> TensorDict:
    """Initialise the parameters of an MLP: Glorot-uniform weights, zero biases (Glorot and Bengio 2010, eq. 16).

    Args:
        sizes: units of every layer, including inputs and outputs.
        generator: generator of the weights, on their device.

    Returns:
        ``weight_i`` ``[inputs, outputs]`` and ``bias_i`` ``[outputs]`` for each layer i.
    """
    layers = {}
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        limit = math.sqrt(6 / (inputs + outputs))
        draws = torch.rand(inputs, outputs, generator=generator, device=generator.device)
        layers[f"weight_{index}"] = (2 * draws - 1) * limit
        layers[f"bias_{index}"] = torch.zeros(outputs, device=generator.device)
    return TensorDict(layers)


def mlp(params: TensorDict, inputs: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Evaluate N MLPs at once, each with its own parameters.

    Args:
        params: as ``init_mlp`` makes them, stacked ``[N]``.
        inputs: ``[N, B, inputs]``.
        activation: between layers; the last layer is linear.

    Returns:
        ``[N, B, outputs]``.
    """
    layers = sum(str(key).startswith("weight_") for key in params.keys())
    parameters = [params[f"{kind}_{index}"] for index in range(layers) for kind in ("weight", "bias")]
    if activation is tanh and compiled_mlp.supports(inputs, parameters[0]):
        return compiled_mlp.evaluate(inputs, parameters)
    hidden = inputs
    for index in range(layers):
        weight, bias = parameters[2 * index : 2 * index + 2]
        hidden = torch.baddbmm(bias.unsqueeze(-2), hidden, weight)
        if index < layers - 1:
            hidden = activation(hidden)
    return hidden
