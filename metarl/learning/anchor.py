"""Elastic weight consolidation (Kirkpatrick et al. 2017): parameters that mattered to earlier tasks are held in place.

After each task k, with parameters θ_k and the diagonal F_k of the Fisher information of what the network predicts, the
loss of later tasks gets the penalty ½ λ Σ_k F_k (θ - θ_k)². Its gradient λ (Σ_k F_k θ - Σ_k F_k θ_k) needs only two
sums, however many tasks there were.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Observations of a task from which the Fisher information is estimated.
SAMPLES = 256


class Anchor:
    """The penalty of the tasks so far.

    Args:
        weight: λ.

    Attributes:
        importance: Σ_k F_k by name of parameter; none before the first task.
        pull: Σ_k F_k θ_k by name.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.importance: dict[str, Tensor] = {}
        self.pull: dict[str, Tensor] = {}

    def add(self, parameters: Mapping[str, Tensor], information: Mapping[str, Tensor]) -> None:
        """Add the penalty of a task.

        Args:
            parameters: θ_k by name.
            information: F_k by name, for all or some of them.
        """
        for name, amount in information.items():
            where = amount * parameters[name].detach()
            self.importance[name] = self.importance[name] + amount if name in self.importance else amount
            self.pull[name] = self.pull[name] + where if name in self.pull else where

    def penalty(self, parameters: Mapping[str, Tensor]) -> Tensor | float:
        """Return the penalty ``[]`` without its constant part, ½ λ Σ_k F_k (θ² - 2 θ θ_k); 0 before the first task.

        Args:
            parameters: θ by name.
        """
        terms = [
            (parameters[name] * (0.5 * self.importance[name] * parameters[name] - self.pull[name])).sum()
            for name in self.importance
        ]
        return self.weight * torch.stack(terms).sum() if terms else 0.0

    def hold(self, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
        """Make every step of an optimiser add the penalty's gradient to that of its loss.

        Args:
            parameters: θ by name; those that the optimiser does not train are left alone.
            optimizer: of a loss whose gradient is in ``grad``.
        """
        trained = {id(value) for group in optimizer.param_groups for value in group["params"]}
        held = [(parameters[name], name) for name in self.importance if id(parameters[name]) in trained]

        @torch.no_grad()
        def add(*_: Any) -> None:
            for value, name in held:
                force = self.weight * (self.importance[name] * value - self.pull[name])
                value.grad = force if value.grad is None else value.grad + force

        if held:
            optimizer.register_step_pre_hook(add)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return both sums."""
        return {"importance": dict(self.importance), "pull": dict(self.pull)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]], device: torch.device) -> None:
        """Restore what ``state_dict`` returned."""
        for name in ("importance", "pull"):
            setattr(self, name, {key: value.to(device) for key, value in state[name].items()})


def information(log_prob: Callable[[int], Tensor], samples: int, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the diagonal of the Fisher information: the mean square of the gradient of a sample's log-likelihood.

    Args:
        log_prob: returns the log-likelihood ``[]`` of the sample of that number, drawn from the network's own
            prediction; the samples may share a graph.
        samples: number of samples.
        parameters: by name.

    Returns:
        A tensor for each parameter that some sample depends on.
    """
    values = list(parameters.values())
    sums = [torch.zeros_like(value) for value in values]
    for number in range(samples):
        gradients = torch.autograd.grad(log_prob(number), values, retain_graph=True, allow_unused=True)
        for total, gradient in zip(sums, gradients, strict=True):
            if gradient is not None:
                total.addcmul_(gradient, gradient, value=1 / samples)
    return {name: total for name, total in zip(parameters, sums, strict=True) if total.any()}


def trained_parameters(network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters of a network that are trained, by name."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}
