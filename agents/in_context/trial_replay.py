"""The base class of learners that train on whole trials from a replay buffer, and its settings.

To the critics a trial is one long episode. If an episode inside it ends, terminated or truncated, they bootstrap from
the first step of the next episode. At the end of the trial they bootstrap from the final observation, as after any time
limit, unless the last episode terminated: then the value is 0.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.agents.gradient.gradient_learner import annealed
from metarl.agents.in_context.memories.memory import MemoryConfig, make_memory
from metarl.agents.in_context.past_trials import AgedTrials, PastTrials
from metarl.agents.in_context.trial_learner import TrialConfig, TrialLearner
from metarl.agents.in_context.trial_reader import TrialReader
from metarl.devices.transfer import read
from metarl.errors import RunError
from metarl.families.family import TaskFamily
from metarl.learning.learner import CHANGING, CONSTANT
from metarl.learning.replay import Replay
from metarl.learning.rollback import restored_on_error
from metarl.networks.activations import choose_activation
from metarl.networks.optimizers import OptimizerConfig, make_optimizer, moments, restore_moments
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.seeding import generator
from metarl.validation import require_counts, require_layers, require_not_negative, require_positive, require_unit


@dataclass(frozen=True)
class ReplayedTrialConfig(OptimizerConfig, MemoryConfig, TrialConfig):
    """Settings of learners that train on replayed trials."""

    hidden_size: int = 64
    """Units of each memory."""
    embedding_size: int = 64
    """Units of the layer that embeds a step's inputs for each memory."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of the hidden layers of policy and critics, which follow the memory."""
    learning_rate: float = 1e-3
    """Step size of the optimiser, for everything that is trained."""
    anneal_iterations: int = 0
    """Iterations over which learning_rate decays linearly to 0; 0 keeps it constant."""
    tau: float = 0.005
    """Weight of the trained networks in each moving-average update of the target networks."""
    updates_per_iteration: int = 50
    """Updates in an iteration, each one step of the optimiser."""
    trials_per_update: int = 32
    """Whole trials in the batch of an update."""
    buffer_trials: int = 2000
    """Number of newest trials in the replay buffer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "hidden_size", "embedding_size", "updates_per_iteration", "trials_per_update")
        require_counts(self, "buffer_trials")
        require_positive(self, "learning_rate")
        require_not_negative(self, "anneal_iterations")
        require_unit(self, "tau")
        require_layers(self, "hidden_sizes")
        self.check_memory(self.hidden_size)


class ReplayedTrialLearner(TrialLearner):
    """A policy that adapts through its memory of the trial, trained on replayed trials.

    A subclass calls ``_train`` once, and defines ``make_network`` and ``_step``.

    Attributes:
        past: the replay buffer.
    """

    learns_from_recorded: ClassVar[bool] = True
    continual: ClassVar[Sequence[str]] = (CONSTANT, CHANGING)
    config: ReplayedTrialConfig
    _trained: list[Tensor]
    _optimizer: torch.optim.Optimizer

    def __init__(self, family: TaskFamily, config: ReplayedTrialConfig, seed: int, device: torch.device) -> None:
        self.config = config
        super().__init__(family, config, seed, device)
        self.past = PastTrials(config.buffer_trials, device)
        self._updates = 0

    def make_reader(self) -> TrialReader:
        """Return a new memory, with the layer that embeds its inputs."""
        config, inputs = self.config, self.inputs
        memory = make_memory(config, config.embedding_size, config.hidden_size)
        activation = choose_activation(config.activation, torch.relu)
        return TrialReader(inputs.size, inputs.observation_size, config.embedding_size, memory, activation)

    def _train(self, values: list[Tensor]) -> None:
        """Make the optimiser of the parameters that are trained."""
        self._trained = values
        self._optimizer = make_optimizer(self.config.optimizer, values, self.config.learning_rate, fused=True)

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Add the trials to the replay buffer, and train on trials from it.

        Raises:
            RunError: when a gradient is NaN or infinite; the learner is then unchanged.
        """
        moved = self.adaptation_kl(rollouts)
        trials = Trials.of(rollouts)
        # All processes draw the same noise for every step of a batch, so their trials need one length.
        trials = trials.padded(max(self.processes.counts(trials.valid.shape[1])))
        newest = self.past.joined(trials, self.processes)
        values = [*self.network.parameters(), *self.network.buffers()]
        with restored_on_error(self, ("_updates",), values, [self._optimizer]):
            metrics = read({"adaptation_kl": moved, **self._descend_often(newest)})
            # Checked after all steps: to look at each would be to wait for it.
            if not math.isfinite(metrics["gradient_norm"]):
                raise RunError("the update is not finite (NaN or infinity in the gradient)")
        self.past.keep(newest)
        return {**metrics, "replay_trials": float(self.past.kept)}

    def _descend_often(self, newest: AgedTrials) -> dict[str, Tensor]:
        """Take all steps of an iteration; return the means of their metrics."""
        config = self.config
        (group,) = self._optimizer.param_groups
        group["lr"] = annealed(config.learning_rate, self._updates, config.anneal_iterations)
        self._updates += 1
        numbers = range(config.updates_per_iteration)
        streams = [generator(self._seed, self.name, self._updates, step, device=self._device) for step in numbers]
        batches = newest.draw(config.trials_per_update, streams)
        steps = [self._step(drawn, noise) for drawn, noise in batches]
        return {name: torch.stack([step[name] for step in steps]).double().mean() for name in steps[0]}

    @abstractmethod
    def _step(self, trials: Trials, noise: torch.Generator) -> dict[str, Tensor]:
        """Take one step of the optimiser; return metrics.

        One of them is ``gradient_norm``, which is finite if the gradient is.

        Args:
            trials: this process's share of the batch.
            noise: generator of random numbers for the whole batch.
        """

    def inputs_to_the_end(self, trials: Trials) -> Tensor:
        """Return the inputs ``[B, L + 1, size]`` of all steps, and of the final observation after the last one."""
        observations, lengths = trials.observations, trials.lengths
        rows = torch.arange(len(lengths), device=lengths.device)
        seen = torch.cat([observations, torch.zeros_like(observations[:, :1])], 1)
        seen[rows, lengths] = trials.next_observations[rows, lengths - 1]
        taken = self.inputs.actions(trials.actions)
        return self.inputs(
            seen,
            torch.cat([torch.zeros_like(taken[:, :1]), taken], 1),
            torch.cat([torch.zeros_like(trials.rewards[:, :1]), trials.rewards], 1),
            torch.cat([trials.starts, torch.zeros_like(trials.starts[:, :1])], 1),
        )

    def replays(self) -> dict[str, Replay]:
        """Return the replay buffer."""
        return {"trials": self.past}

    def state_dict(self) -> dict[str, Any]:
        """Return parameters, the optimiser's moments, the seed and the number of updates."""
        own = {"moments": moments(self._optimizer), "seed": self._seed, "updates": self._updates}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self._seed, self._updates = int(state["seed"]), int(state["updates"])
        restore_moments(self._optimizer, state["moments"])


def ends_the_trial(trials: Trials) -> Tensor:
    """Return bool ``[B, L]``: whether a step is the trial's last and terminated its episode."""
    last = torch.arange(trials.valid.shape[1], device=trials.valid.device) == trials.lengths.unsqueeze(1) - 1
    return trials.terminated & last
