"""What a memory is: a network that reads a trial, all at once or step by step, with the same results."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, TypeVar

import torch
from torch import Tensor, nn

from metarl.errors import InputError
from metarl.networks.activations import Activation, ActivationConfig
from metarl.registry import Registry
from metarl.validation import require_choice, require_counts

# What is remembered of B trials: named tensors ``[B, ...]``.
Memory = dict[str, Tensor]
PreviousStep = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class MemoryConfig(ActivationConfig):
    """Settings of the memory of a learner; its size is the learner's own setting."""

    memory: str = "gru"
    """Memory of the trial: gru, lstm, min-gru, transformer, external, set, splagger, language-model, or your own as
    module:name."""
    previous_step: PreviousStep = "auto"
    """Also read the inputs of the previous step: yes, no, or auto (yes for the transformer, set and
    language-model)."""
    layers: int = 2
    """Blocks of the transformer or min-gru."""
    heads: int = 4
    """Attention heads of each transformer block."""
    window: int = 128
    """Steps that attention reaches back, including the current one."""
    slots: int = 32
    """Vectors of the external memory."""
    slot_size: int = 32
    """Size of each of them."""
    model: str = ""
    """For the memory language-model: a folder of transformers, a GGUF file or a name on the Hugging Face hub."""
    adapter_rank: int = 8
    """Rank of its adapters."""
    orthogonal: bool = False
    """Start gru, lstm and splagger with orthogonal recurrent weights, Xavier input weights and zero biases, instead of
    PyTorch's uniform numbers."""

    def check_memory(self, size: int) -> None:
        """Check these settings.

        Args:
            size: of the memory, in units.

        Raises:
            InputError: when one is out of its range, or there is no such memory.
        """
        require_counts(self, "layers", "heads", "window", "slots", "slot_size", "adapter_rank")
        require_choice(self, "previous_step", PreviousStep)
        kind = MEMORIES.find(self.memory)
        if self.orthogonal and not kind.takes_orthogonal and ":" not in self.memory:
            raise InputError(
                f"orthogonal would have no effect: the memory {self.memory} has no recurrent weights; omit it, or use "
                "--memory gru, lstm or splagger"
            )
        kind.check(self, size)


class MemoryNetwork(nn.Module, ABC):
    """A causal network over the steps of trials.

    Attributes:
        name: name in settings.
        wants_previous_step: default for whether each step also reads the inputs of the previous step.
        takes_orthogonal: whether the setting ``orthogonal`` has an effect.
        size: size of its outputs.
    """

    name: ClassVar[str]
    wants_previous_step: ClassVar[bool] = False
    takes_orthogonal: ClassVar[bool] = False
    size: int

    @classmethod
    def check(cls, config: MemoryConfig, size: int) -> None:
        """Raise ``InputError`` where this memory cannot be made with the settings."""

    @classmethod
    @abstractmethod
    def make(cls, config: MemoryConfig, inputs: int, size: int) -> Self:
        """Return a new network.

        Args:
            config: settings, of which it takes its own.
            inputs: size D of a step's inputs.
            size: units.
        """

    @abstractmethod
    def initial(self, trials: int) -> Memory:
        """Return the memory before a trial's first step, on the network's device."""

    @abstractmethod
    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read the next L steps of B trials.

        Args:
            inputs: ``[B, L, D]``.
            memory: the memory after the steps before them. A single step without gradients may modify it in place and
                return it; otherwise it is not changed.
            lengths: how many of the steps belong to each trial ``[B]``, at least 1; by default all. The steps after
                them are padding: they change neither the memory nor the outputs of the steps before.

        Returns:
            Outputs ``[B, L, size]`` and the memory after each trial's last step.
        """


MEMORIES: Registry[type[MemoryNetwork]] = Registry("memory", "docs/rl2.md")
NetworkT = TypeVar("NetworkT", bound=MemoryNetwork)


def register_memory(network: type[NetworkT]) -> type[NetworkT]:
    """Register a memory under its name; used as a class decorator."""
    MEMORIES[network.name] = network
    return network


class TransitionReader(MemoryNetwork):
    """A memory that reads the inputs of the step before together with each step's own.

    The outcome of an action is in the inputs of the next step, which contain the previous action and reward, but not
    the previous observation. With both, a step has a complete transition: observation, action, reward and next
    observation.

    Args:
        memory: reads ``2 * inputs`` numbers a step.
        inputs: size D of a step's own inputs.
    """

    def __init__(self, memory: MemoryNetwork, inputs: int) -> None:
        super().__init__()
        self.memory, self.size, self._inputs = memory, memory.size, inputs

    @classmethod
    def make(cls, config: MemoryConfig, inputs: int, size: int) -> Self:
        """Return a new network that wraps the one named in the settings."""
        return cls(MEMORIES.find(config.memory).make(config, 2 * inputs, size), inputs)

    def initial(self, trials: int) -> Memory:
        """Return the wrapped memory's initial state, and zeros as the ``previous`` inputs ``[B, D]``."""
        previous = next(self.memory.parameters()).new_zeros(trials, self._inputs)
        return {"previous": previous, **self.memory.initial(trials)}

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read the next steps of B trials."""
        own = {name: value for name, value in memory.items() if name != "previous"}
        outputs, own = self.memory(self.transitions(inputs, memory), own, lengths)
        return outputs, {"previous": last_steps(inputs, lengths), **own}

    def transitions(self, inputs: Tensor, memory: Memory) -> Tensor:
        """Return each step's inputs ``[B, L, D]`` with those of the step before, ``[B, L, 2 D]``."""
        before = torch.cat([memory["previous"].unsqueeze(1), inputs[:, :-1]], 1)
        return torch.cat([inputs, before], -1)


def make_memory(config: MemoryConfig, inputs: int, size: int) -> MemoryNetwork:
    """Return a new network; its numbers come from torch's global stream.

    Args:
        config: which memory, and its settings.
        inputs: size of a step's inputs.
        size: of the memory, in units.
    """
    kind = MEMORIES.find(config.memory)
    both = config.previous_step == "yes" or (config.previous_step == "auto" and kind.wants_previous_step)
    return (TransitionReader if both else kind).make(config, inputs, size)


def check_activation(config: MemoryConfig, memory: MemoryNetwork) -> None:
    """Check that a memory has layers for an activation, in a learner that has no others; your own is not checked.

    Raises:
        InputError: if an activation is set that would have no effect.
    """
    own = ":" in config.memory or any(isinstance(each, Activation) for each in memory.modules())
    if config.activation != "auto" and not own:
        raise InputError(
            f"activation {config.activation} would have no effect: the memory {config.memory} has fixed ones; omit it, "
            "or use --memory transformer, min-gru or set"
        )


def last_steps(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Return values ``[B, L, H]`` at the last step of each trial ``[B, H]``; ``lengths`` as in ``MemoryNetwork``."""
    if lengths is None:
        return values[:, -1]
    return values[torch.arange(len(lengths), device=lengths.device), lengths - 1]
