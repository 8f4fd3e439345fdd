"""SplAgger, split aggregation: recurrent units, half of whose outputs are aggregated in any order."""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.gru import Gru
from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, last_steps, register_memory
from metarl.errors import InputError


@register_memory
class SplAgger(MemoryNetwork):
    """Gated recurrent units with a linear layer; for half of its outputs the maximum is kept (Beck et al. 2024).

    The maximum is over the trial's steps so far, and starts at 0; the other half are the present outputs. The evidence
    about a task does not depend on the order of transitions, and neither does a maximum; besides, its gradient reaches
    the step that it is from without passing through those between.

    Args:
        inputs: size of a step's inputs.
        size: number of units and of outputs: a multiple of 2.
        orthogonal: of the units (``Gru``).
    """

    name: ClassVar[str] = "splagger"
    takes_orthogonal: ClassVar[bool] = True

    def __init__(self, inputs: int, size: int, orthogonal: bool) -> None:
        super().__init__()
        self.size = size
        self.units, self.outputs = Gru(inputs, size, orthogonal), nn.Linear(size, size)

    @classmethod
    def check(cls, config: MemoryConfig, size: int) -> None:
        """Raise ``InputError`` where the size cannot be halved."""
        if size % 2:
            raise InputError(
                f"the memory splagger's size (hidden_size or encoder_size) must be a multiple of 2, not {size}"
            )

    @classmethod
    def make(cls, config: MemoryConfig, inputs: int, size: int) -> Self:
        """Return a new network."""
        return cls(inputs, size, config.orthogonal)

    def initial(self, trials: int) -> Memory:
        """Return zeros ``hidden`` ``[B, size]`` and ``most`` ``[B, size / 2]``, the maximum so far."""
        return {**self.units.initial(trials), "most": self.outputs.weight.new_zeros(trials, self.size // 2)}

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read the next steps of B trials."""
        hidden, following = self.units(inputs, {"hidden": memory["hidden"]}, lengths)
        present, own = self.outputs(hidden).chunk(2, -1)
        most = torch.maximum(own.cummax(1).values, memory["most"].unsqueeze(1))
        return torch.cat([present, most], -1), {**following, "most": last_steps(most, lengths)}
