"""The base class of policies and critics on the outputs of a memory that their gradients train."""

from abc import abstractmethod

from torch import Tensor

from metarl.agents.in_context.memories.memory import Memory, MemoryNetwork
from metarl.agents.in_context.step_inputs import ActionDistribution, ActionHead
from metarl.agents.in_context.trial_learner import TrialNetwork


class MemoryActorCritic(TrialNetwork):
    """A policy and a critic on the outputs of a memory.

    Args:
        memory: reads the steps.
        head: head of the action distributions.
    """

    def __init__(self, memory: MemoryNetwork, head: ActionHead) -> None:
        super().__init__()
        self.memory, self.head = memory, head

    @abstractmethod
    def act(self, inputs: Tensor, outputs: Tensor) -> tuple[ActionDistribution, Tensor]:
        """Return action distributions and values ``[B, L]`` on inputs ``[B, L, D]`` and the memory's outputs."""

    def initial(self, trials: int) -> Memory:
        """Return the initial memory of a trial."""
        return self.memory.initial(trials)

    def forward(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Tensor, Memory]:
        """Read the next steps of B trials."""
        outputs, memory = self.memory(inputs, memory, lengths)
        return *self.act(inputs, outputs), memory
