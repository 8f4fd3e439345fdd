"""The base class of learners whose policy gradient trains their memory, through whole trials or chunks of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from metarl.agents.in_context.memories.memory import Memory, MemoryConfig
from metarl.agents.in_context.selected_trials import lengths_read, own_or_first, selected
from metarl.agents.in_context.trial_ppo import TrialPpoConfig, TrialPpoLearner
from metarl.rollouts.trials import Trials
from metarl.validation import require_counts, require_not_negative


@dataclass(frozen=True)
class MemoryPpoConfig(MemoryConfig, TrialPpoConfig):
    """Settings of proximal policy optimisation that trains a memory."""

    hidden_size: int = 64
    """Units of the memory."""
    bptt_steps: int = 0
    """Steps in the chunks of a trial through which gradients flow back (truncated BPTT), of which minibatches then
    consist; 0: whole trials."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "hidden_size")
        require_not_negative(self, "bptt_steps")
        self.check_memory(self.hidden_size)


@dataclass(frozen=True)
class Chunks:
    """P chunks of C steps, and what is known of them from reading the whole trials.

    Attributes:
        trials: the chunks; some may lie after the end of their trial.
        actions: features ``[P, A]`` of the action before the first step.
        rewards: the reward before it, ``[P]``.
        memory: the memory before it.
        shares: factors of the critic's outputs ``[P, C]``.
        advantages: ``[P, C]``.
        targets: of the critic, ``[P, C]``.
    """

    trials: Trials
    actions: Tensor
    rewards: Tensor
    memory: Memory
    shares: Tensor
    advantages: Tensor
    targets: Tensor

    def __getitem__(self, rows: Tensor) -> Self:
        """Return the chunks with these numbers; if there are none, one whose steps do not count."""
        own = own_or_first(rows)
        return type(self)(
            selected(self.trials, rows),
            self.actions[own],
            self.rewards[own],
            {name: value[own] for name, value in self.memory.items()},
            self.shares[own],
            self.advantages[own],
            self.targets[own],
        )


class MemoryPpoLearner(TrialPpoLearner):
    """A policy and a critic on a memory, all trained by proximal policy optimisation."""

    config: MemoryPpoConfig

    def _losses(self, trials: Trials) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        if not self.config.bptt_steps:
            yield from super()._losses(trials)
            return
        chunks = self.chunks(trials)
        # Chunks after the end of their trial would only make minibatches smaller.
        for rows in self._minibatches(len(chunks.rewards), chunks.trials.valid.any(-1)):
            yield self.loss_of_chunks(chunks[rows])

    @torch.no_grad()
    def chunks(self, trials: Trials) -> Chunks:
        """Read whole trials; return their chunks of ``bptt_steps`` steps, sorted by trial.

        Each trial has as many chunks as the longest one of all processes, so that minibatches are the same on any
        number of processes. Memories, advantages and targets are those of the parameters before the update.
        """
        config, longest = self.config, max(self.processes.counts(trials.valid.shape[1]))
        steps = min(config.bptt_steps, longest)
        count = -(-longest // steps)
        trials = trials.padded(count * steps)
        inputs, memory = self.trial_inputs(trials), self.network.initial(len(trials.rewards))
        memories, outputs = [], []
        for start in range(0, count * steps, steps):
            chunk = slice(start, start + steps)
            memories.append({name: value.clone() for name, value in memory.items()})
            read = trials.valid[:, chunk].sum(-1).clamp(min=1)
            _, values, memory = self.network(inputs[:, chunk], memory, read)
            outputs.append(values)
        values = torch.cat(outputs, 1)
        shares = self._share_ahead(trials) if config.scale_values else torch.ones_like(values)
        values = values * shares
        advantages = self.advantages(trials, values)

        def cut(tensor: Tensor) -> Tensor:
            return tensor.reshape(-1, steps, *tensor.shape[2:])

        def before(tensor: Tensor) -> Tensor:
            return torch.cat([torch.zeros_like(tensor[:, :1]), tensor[:, steps - 1 : -1 : steps]], 1).flatten(0, 1)

        return Chunks(
            Trials(**{name: cut(value) for name, value in vars(trials).items()}),
            before(self.inputs.actions(trials.actions)),
            before(trials.rewards),
            {name: torch.stack([each[name] for each in memories], 1).flatten(0, 1) for name in memory},
            cut(shares),
            cut(advantages),
            cut(advantages + values),
        )

    def loss_of_chunks(self, chunks: Chunks) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what ``loss`` returns, for a minibatch of chunks."""
        inputs = self.trial_inputs(chunks.trials, chunks.actions, chunks.rewards)
        distribution, values, _ = self.network(inputs, chunks.memory, lengths_read(chunks.trials))
        values = values * chunks.shares
        return self.surrogate_loss(chunks.trials, distribution, values, chunks.advantages, chunks.targets)
