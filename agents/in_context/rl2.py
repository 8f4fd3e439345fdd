"""RL²: a policy with a memory that learns to learn (Duan et al. 2016; Wang et al. 2016).

It reads observation, previous action, previous reward and the beginnings of episodes, and its memory lives through the
episodes of a trial. What it does with a new task is in what it remembers; its weights stay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from metarl.agents.in_context.memories.external import ExternalMemory
from metarl.agents.in_context.memories.memory import Gru, Memory, MemoryNetwork
from metarl.agents.in_context.memories.transformer import Transformer
from metarl.agents.in_context.step_inputs import ActionDistribution, ActionHead
from metarl.agents.in_context.trial_learner import TrialNetwork, small_layer
from metarl.agents.in_context.trial_ppo import TrialPpoConfig, TrialPpoLearner
from metarl.errors import InputError
from metarl.family import TaskFamily
from metarl.learner import register_learner
from metarl.validation import require_choice, require_counts

MemoryKind = Literal["gru", "transformer", "external"]


@dataclass(frozen=True)
class Rl2Config(TrialPpoConfig):
    """Settings of RL²."""

    memory: MemoryKind = "gru"
    """What remembers: gru (recurrent units), transformer (attention to past steps) or external (units with slots)."""
    hidden_size: int = 64
    """Recurrent units, or the transformer's width."""
    layers: int = 2
    """Blocks of the transformer."""
    heads: int = 4
    """Attention heads of each of its blocks."""
    window: int = 128
    """Steps that its attention reaches back, the present one included."""
    slots: int = 32
    """Vectors of the external memory."""
    slot_size: int = 32
    """Numbers in each of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "hidden_size", "layers", "heads", "window", "slots", "slot_size")
        require_choice(self, "memory", MemoryKind)
        if self.memory == "transformer" and self.hidden_size % (2 * self.heads):
            multiple = f"a multiple of 2 * heads = {2 * self.heads}"
            raise InputError(f"a transformer's hidden_size must be {multiple}, not {self.hidden_size}")


# The memory of each kind for a size of inputs.
MEMORIES: dict[MemoryKind, Callable[[Rl2Config, int], MemoryNetwork]] = {
    "gru": lambda config, inputs: Gru(inputs, config.hidden_size),
    "transformer": lambda config, inputs: Transformer(
        inputs, config.hidden_size, config.layers, config.heads, config.window
    ),
    "external": lambda config, inputs: ExternalMemory(inputs, config.hidden_size, config.slots, config.slot_size),
}


class RecurrentActorCritic(TrialNetwork):
    """Linear policy and critic on the outputs of a memory."""

    def __init__(self, memory: MemoryNetwork, head: ActionHead) -> None:
        super().__init__()
        self.memory, self.head = memory, head
        self.policy, self.critic = small_layer(memory.size, head.size), small_layer(memory.size, 1, 1.0)

    def initial(self, trials: int) -> Memory:
        """Return what is remembered before a trial's first step."""
        return self.memory.initial(trials)

    def forward(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Tensor, Memory]:
        """Read on in B trials."""
        outputs, memory = self.memory(inputs, memory, lengths)
        return self.head(self.policy(outputs)), self.critic(outputs).squeeze(-1), memory


@register_learner
class Rl2(TrialPpoLearner):
    """A policy whose memory of the trial is its adaptation, trained by PPO over whole trials."""

    name: ClassVar[str] = "rl2"
    config_class: ClassVar[type] = Rl2Config
    config: Rl2Config

    def make_network(self, family: TaskFamily) -> TrialNetwork:
        """Return the memory with a policy and a critic on it."""
        memory = MEMORIES[self.config.memory](self.config, self.inputs.size)
        return RecurrentActorCritic(memory, ActionHead(family.action_space))
