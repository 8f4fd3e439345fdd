"""Imitation in context: a policy with a memory of the trial is trained to predict actions, given the steps before them.

No reward is maximised. What the policy learns to do with a trial depends on whose actions they are: the best ones of
the task (``dpt``), or those of a learner that improves (``algorithm_distillation``).
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.agents.gradient.gradient_learner import annealed
from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, check_activation, make_memory
from metarl.agents.in_context.perceptrons import small_layer
from metarl.agents.in_context.selected_trials import selected
from metarl.agents.in_context.step_inputs import ActionDistribution, ActionHead
from metarl.agents.in_context.trial_learner import ADAPTATION_KL, TrialConfig, TrialLearner, TrialPolicy
from metarl.devices.processes import Shard
from metarl.devices.transfer import read, send
from metarl.errors import RunError
from metarl.families.family import TaskFamily
from metarl.learning.rollback import restored_on_error
from metarl.networks.optimizers import OptimizerConfig, make_optimizer, moments, restore_moments
from metarl.numerics.noise import draw_rows
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.seeding import generator
from metarl.validation import require_counts, require_not_negative, require_positive


@dataclass(frozen=True)
class ImitationConfig(OptimizerConfig, MemoryConfig, TrialConfig):
    """Settings of imitation in context."""

    memory: str = "transformer"
    """Memory of the trial: gru, lstm, min-gru, transformer, external, set, splagger, language-model, or your own as
    module:name."""
    hidden_size: int = 64
    """Units of the memory."""
    optimizer: str = "adamw"
    """Optimiser: adamw, another of torch.optim in lower case (adam, sgd, rmsprop, ...), or your own as module:name."""
    learning_rate: float = 1e-3
    """Step size of the optimiser."""
    anneal_iterations: int = 0
    """Iterations over which learning_rate decays linearly to 0; 0 keeps it constant."""
    weight_decay: float = 1e-4
    """Weight decay of the optimiser."""
    epochs: int = 1
    """Epochs over the trials of an iteration."""
    minibatches: int = 4
    """Minibatches per epoch, with one step of the optimiser each."""
    max_gradient_norm: float = 1.0
    """Norm to which gradients are clipped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "hidden_size", "epochs", "minibatches")
        require_positive(self, "learning_rate", "max_gradient_norm")
        require_not_negative(self, "anneal_iterations", "weight_decay")
        self.check_memory(self.hidden_size)


class MemoryPolicy(TrialPolicy):
    """A linear policy on the outputs of a memory."""

    def __init__(self, memory: MemoryNetwork, head: ActionHead) -> None:
        super().__init__()
        self.memory, self.head, self.policy = memory, head, small_layer(memory.size, head.size)

    def initial(self, trials: int) -> Memory:
        """Return the initial memory of a trial."""
        return self.memory.initial(trials)

    def policy_and_memory(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Memory]:
        """Read the next steps of B trials."""
        outputs, memory = self.memory(inputs, memory, lengths)
        return self.of_outputs(outputs), memory

    def of_outputs(self, outputs: Tensor) -> ActionDistribution:
        """Return the distributions for outputs of the memory ``[B, L, size]``."""
        distribution: ActionDistribution = self.head(self.policy(outputs))
        return distribution


class ImitationLearner(TrialLearner):
    """A learner that is trained by behaviour cloning on whole trials."""

    config: ImitationConfig
    network: MemoryPolicy
    learns_from_recorded: ClassVar[bool] = True
    metrics: ClassVar[Mapping[str, str]] = {
        "adaptation_kl": ADAPTATION_KL,
        "imitation_loss": "minus the mean log-probability of the actions to imitate, in nats",
        "entropy": "mean entropy of the policy, in nats",
        "gradient_norm": "mean Euclidean norm of the gradient, before clipping",
        "learning_rate": "step size of the optimiser in the update",
    }

    def __init__(self, family: TaskFamily, config: ImitationConfig, seed: int, device: torch.device) -> None:
        self.config = config
        super().__init__(family, config, seed, device)
        check_activation(config, self.network.memory)
        parameters, lr = self.network.parameters(), config.learning_rate
        self._optimizer = make_optimizer(config.optimizer, parameters, lr, config.weight_decay, fused=True)
        self._updates = 0

    def make_network(self, family: TaskFamily) -> MemoryPolicy:
        """Return the memory with a policy on it."""
        memory = make_memory(self.config, self.inputs.size, self.config.hidden_size)
        return MemoryPolicy(memory, ActionHead(family.action_space))

    @abstractmethod
    def examples(self, rollouts: Sequence[Rollout]) -> Trials:
        """Return the trials of an iteration, with the actions to imitate.

        Raises:
            InputError: if these are not known.
        """

    def arranged(self, trials: Trials, keys: Tensor) -> Trials:
        """Return the trials as an epoch presents them; by default unchanged.

        Args:
            trials: B of them, as long as those of other processes.
            keys: random numbers in [0, 1) ``[B, L]``.
        """
        return trials

    @abstractmethod
    def predicted(self, trials: Trials) -> tuple[ActionDistribution, Tensor]:
        """Return the policy at each step of arranged trials, and the actions to imitate there ``[B, L, *action]``."""

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Maximise the likelihood of the actions to imitate, in several passes over the iteration's trials.

        Raises:
            InputError: if these are not known.
            RunError: if a gradient is NaN or infinite; the learner is then unchanged.
        """
        trials = self.examples(rollouts)
        trials = trials.padded(max(self.processes.counts(trials.valid.shape[1])))
        values = [*self.network.parameters(), *self.network.buffers()]
        moved = self.adaptation_kl(rollouts)
        with restored_on_error(self, ("_updates",), values, [self._optimizer]):
            metrics = read({"adaptation_kl": moved, **self._learn(trials)})
            # Checked after all steps: to look at each would be to wait for it.
            if not math.isfinite(metrics["gradient_norm"]):
                raise RunError("the update is not finite (NaN or infinity in the gradient)")
            return metrics

    def _learn(self, trials: Trials) -> dict[str, Tensor | float]:
        """Take all steps of an update; return the means of their metrics."""
        config = self.config
        (group,) = self._optimizer.param_groups
        group["lr"] = rate = annealed(config.learning_rate, self._updates, config.anneal_iterations)
        self._updates += 1
        steps = [self._step(part) for part in self._minibatches(trials)]
        means = {name: torch.stack([step[name] for step in steps]).double().mean() for name in steps[0]}
        return {**means, "learning_rate": rate}

    def _minibatches(self, trials: Trials) -> Iterator[Trials]:
        """Yield this process's trials in each minibatch, possibly none; each epoch has its own order of trials."""
        own, total = self.processes.rows(len(trials.rewards))
        whole = generator(self._seed, "imitation", self._updates)
        noise = Shard(own.start, own.stop, total).generator(generator(self._seed, "arrangement", self._updates))
        for _ in range(self.config.epochs):
            keys = draw_rows(torch.rand, trials.valid.shape, noise)
            arranged = self.arranged(trials, send(keys, self._device))
            for numbers in torch.randperm(total, generator=whole).chunk(self.config.minibatches):
                mine = (numbers >= own.start) & (numbers < own.stop)
                yield selected(arranged, send(numbers[mine] - own.start, self._device))

    def _step(self, trials: Trials) -> dict[str, Tensor]:
        loss, entropy = self.loss(trials)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.processes.average_gradients(self.network.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.max_gradient_norm)
        self._optimizer.step()
        measured = self.processes.mean(torch.stack([loss, entropy]).detach())
        return {"imitation_loss": measured[0], "entropy": measured[1], "gradient_norm": norm}

    def loss(self, trials: Trials) -> tuple[Tensor, Tensor]:
        """Return this process's share of the loss of a minibatch of arranged trials, and of the policy's entropy.

        The mean over processes of the shares is the mean over all steps of the minibatch.
        """
        weights = trials.valid.to(trials.rewards.dtype) / self.processes.mean(trials.valid.sum())
        distribution, targets = self.predicted(trials)
        # Padding, and a process without a trial, must contribute nothing, whatever their values are.
        log_probs = torch.where(trials.valid, distribution.log_prob(targets), 0.0)
        return -(log_probs * weights).sum(), (distribution.entropy() * weights).sum()

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, the optimiser's moments, the seed and the number of updates."""
        own = {"moments": moments(self._optimizer), "seed": self._seed, "updates": self._updates}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self._seed, self._updates = int(state["seed"]), int(state["updates"])
        restore_moments(self._optimizer, state["moments"])
