"""Recurrent SAC's networks: an actor with a memory, and twin critics with another one."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory
from metarl.agents.in_context.perceptrons import Perceptrons
from metarl.agents.in_context.soft_actions import SoftActions
from metarl.agents.in_context.step_inputs import ActionDistribution
from metarl.agents.in_context.trial_learner import TrialPolicy
from metarl.agents.in_context.trial_reader import TrialReader
from metarl.networks.activations import Elementwise


class Critics(nn.Module):
    """Twin critics on one memory."""

    def __init__(
        self, reader: TrialReader, actions: SoftActions, hidden_sizes: Sequence[int], activation: Elementwise
    ) -> None:
        super().__init__()
        sizes = [reader.size + actions.critic_inputs, *hidden_sizes, actions.critic_outputs]
        self.reader, self.heads = reader, Perceptrons(2, sizes, torch.default_generator, activation)


class RecurrentSacNetworks(TrialPolicy):
    """Actor, critics, target critics and temperature, initialised from torch's global generator.

    Args:
        readers: of the actor and of the critics.
        actions: the kind of actions.
        hidden_sizes: units of the hidden layers of policy and critics.
        temperature: its initial value.
        activation: between layers of policy and critics.
    """

    def __init__(
        self,
        readers: tuple[TrialReader, TrialReader],
        actions: SoftActions,
        hidden_sizes: Sequence[int],
        temperature: float,
        activation: Elementwise,
    ) -> None:
        super().__init__()
        self.actions, (reader, critics_reader) = actions, readers
        sizes = [reader.size, *hidden_sizes, actions.policy_outputs]
        head = Perceptrons(1, sizes, torch.default_generator, activation)
        self.actor = nn.ModuleDict({"reader": reader, "head": head})
        self.critics = Critics(critics_reader, actions, hidden_sizes, activation)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())

    def initial(self, trials: int) -> Memory:
        """Return the initial memory of the actor."""
        reader: Any = self.actor["reader"]
        memory: Memory = reader.memory.initial(trials)
        return memory

    def policy_and_memory(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Memory]:
        """Read the next steps of B trials with the actor's memory."""
        features, memory = self.actor["reader"](inputs, memory, lengths)
        return self.actions.policy(self.actor["head"](features)[0]), memory

    @torch.no_grad()
    def follow(self, share: float) -> None:
        """Move the target critics towards the critics, which get this weight."""
        torch._foreach_lerp_(list(self.targets.parameters()), list(self.critics.parameters()), share)
