"""A memory that reads steps in any order: a weighted mean of features of each."""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, last_steps, register_memory
from metarl.networks.activations import Activation, Elementwise, choose_activation


@register_memory
class Set(MemoryNetwork):
    """A function of the precision-weighted mean of Gaussian factors, one for each step (Zaheer et al. 2017).

    With features m_i and precisions p_i of the steps so far, it is an MLP of Σ p_i m_i / (1 + Σ p_i), the mean of
    the product of the factors and a standard normal prior (Rakelly et al. 2019, section 4.2). It remembers neither
    order nor time, and reads a whole trial without a loop over steps.

    Args:
        inputs: size of a step's inputs.
        size: of the features and of the outputs.
        activation: between layers.
    """

    name: ClassVar[str] = "set"
    wants_previous_step: ClassVar[bool] = True

    def __init__(self, inputs: int, size: int, activation: Elementwise = torch.relu) -> None:
        super().__init__()
        self.size = size
        between = Activation(activation)
        hidden = [nn.Linear(inputs, size), between, nn.Linear(size, size), between]
        self.factor = nn.Sequential(*hidden, nn.Linear(size, 2 * size))
        self.merged = nn.Sequential(nn.Linear(size, size), between, nn.Linear(size, size))

    @classmethod
    def make(cls, config: MemoryConfig, inputs: int, size: int) -> Self:
        """Return a new network."""
        return cls(inputs, size, choose_activation(config.activation, torch.relu))

    def initial(self, trials: int) -> Memory:
        """Return zeros ``precision`` and ``shift`` ``[B, size]``: no factor."""
        nothing = next(self.factor.parameters()).new_zeros(trials, self.size)
        return {"precision": nothing, "shift": nothing.clone()}

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read the next steps of B trials."""
        means, outputs = self.factor(inputs).chunk(2, -1)
        precisions = softplus(outputs)
        read = torch.stack([precisions, precisions * means]).cumsum(2)
        precision, shift = read + torch.stack([memory["precision"], memory["shift"]]).unsqueeze(2)
        return self.merged(shift / (1 + precision)), {
            "precision": last_steps(precision, lengths),
            "shift": last_steps(shift, lengths),
        }
