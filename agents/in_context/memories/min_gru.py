"""Minimal gated recurrent units: their gates depend on inputs alone, so steps need not be read one after the other."""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.linear_scan import read_linear
from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, last_steps, register_memory
from metarl.networks.activations import Activation, Elementwise, choose_activation

# A gate's bias is initially minus the logarithm of a number of steps up to this, after which a unit forgets.
LONGEST = 150.0


@register_memory
class MinGru(MemoryNetwork):
    """Blocks of minGRU and an MLP (Feng et al. 2024, section 3.1).

    In each block, with x the layer-normalised output of the block before it::

        z_t = sigmoid(linear(x_t))
        h_t = (1 - z_t) * h_{t-1} + z_t * linear(x_t)

    Gate and candidate depend on the inputs alone, so the recurrence is linear in h and takes O(√L) sequential steps
    (``linear_scan``). One block alone is a weighted mean of what it read; only blocks on top of it can relate steps to
    each other. At first the units forget at many different rates, over up to 150 steps (Tallec and Ollivier 2018).

    Args:
        inputs: size of a step's inputs.
        size: of the outputs and of everything in between.
        layers: number of blocks.
        activation: of the hidden layer of each block's MLP.
    """

    name: ClassVar[str] = "min-gru"

    def __init__(self, inputs: int, size: int, layers: int, activation: Elementwise = torch.relu) -> None:
        super().__init__()
        self.size = size
        self.embed = nn.Linear(inputs, size)
        self.blocks = nn.ModuleList(_Block(size, activation) for _ in range(layers))
        self.norm = nn.LayerNorm(size)

    @classmethod
    def make(cls, config: MemoryConfig, inputs: int, size: int) -> Self:
        """Return a new network."""
        return cls(inputs, size, config.layers, choose_activation(config.activation, torch.relu))

    def initial(self, trials: int) -> Memory:
        """Return zeros ``hidden_i`` ``[B, size]`` for each block."""
        return {f"hidden_{index}": self.embed.weight.new_zeros(trials, self.size) for index in range(len(self.blocks))}

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read the next steps of B trials."""
        outputs, following = self.embed(inputs), {}
        for index, block in enumerate(self.blocks):
            outputs, states = block(outputs, memory[f"hidden_{index}"])
            following[f"hidden_{index}"] = last_steps(states, lengths)
        return self.norm(outputs), following


class _Block(nn.Module):
    def __init__(self, size: int, activation: Elementwise) -> None:
        super().__init__()
        self.before_memory, self.before_perceptron = nn.LayerNorm(size), nn.LayerNorm(size)
        self.project, self.merge = nn.Linear(size, 2 * size), nn.Linear(size, size)
        self.perceptron = nn.Sequential(nn.Linear(size, 4 * size), Activation(activation), nn.Linear(4 * size, size))
        with torch.no_grad():
            self.project.bias[:size].uniform_(1, LONGEST).log_().neg_()

    def forward(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and what was remembered at every step, ``[B, L, size]`` each."""
        gate, candidate = self.project(self.before_memory(inputs)).chunk(2, -1)
        write = gate.sigmoid()
        if inputs.shape[1] == 1:
            states = torch.lerp(hidden.unsqueeze(1), candidate, write)
        else:
            # sigmoid(-x) is 1 - sigmoid(x) without the loss of digits near 1
            states = read_linear((-gate).sigmoid(), write * candidate, hidden)
        outputs = inputs + self.merge(states)
        return outputs + self.perceptron(self.before_perceptron(outputs)), states
