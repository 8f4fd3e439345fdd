"""Metric-based task inference: a policy that acts on an embedding of its trial, which is trained to distinguish tasks.

An encoder with a memory maps the episodes so far to an embedding. It is trained by comparison: embeddings of different
trials of one task should be alike, and those of different tasks differ (``task_metrics``). No rewards are predicted,
and no gradient of policy or critic reaches it. Policy and critic act on the observation and on the embedding with which
the episode started, and are trained with PPO over whole trials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory, MemoryConfig, MemoryNetwork, last_steps, make_memory
from metarl.agents.in_context.perceptrons import perceptron_with_head
from metarl.agents.in_context.selected_trials import own_or_first
from metarl.agents.in_context.step_inputs import ActionHead
from metarl.agents.in_context.task_metrics import METRICS, Metric
from metarl.agents.in_context.trial_ppo import TrialPpoConfig, TrialPpoLearner
from metarl.agents.in_context.varibad_networks import KnowingActorCritic
from metarl.devices.transfer import send
from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.learning.learner import register_learner
from metarl.networks.activations import Elementwise, choose_activation
from metarl.networks.optimizers import make_optimizer, moments, restore_moments
from metarl.numerics.noise import BatchGenerator, draw_rows
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.seeding import generator
from metarl.validation import require_choice, require_counts, require_layers, require_positive

MetricName = Literal["contrastive", "siamese", "prototypical", "matching", "relation", "focal"]


@dataclass(frozen=True)
class MetricConfig(MemoryConfig, TrialPpoConfig):
    """Settings of the metric-based learner."""

    memory: str = "set"
    """Memory of the encoder: set, gru, lstm, min-gru, transformer, external, splagger, language-model, or your own as
    module:name."""
    task_encoder: MetricName = "contrastive"
    """Metric that trains the encoder."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of the hidden layers of policy and critic."""
    encoder_size: int = 64
    """Units of the encoder's memory."""
    latent_size: int = 5
    """Size of the embedding of a task."""
    metric_learning_rate: float = 1e-3
    """Step size of the optimiser for the encoder."""
    metric_updates: int = 20
    """Steps of the optimiser on the encoder per iteration."""
    metric_tasks: int = 64
    """Tasks that are compared in each of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, "encoder_size", "latent_size", "metric_updates", "metric_tasks")
        require_positive(self, "metric_learning_rate")
        require_layers(self, "hidden_sizes")
        require_choice(self, "task_encoder", MetricName)
        self.check_memory(self.encoder_size)


class TaskEmbedder(nn.Module):
    """Maps a trial to an embedding of its task: a memory and a linear layer.

    Args:
        memory: reads the steps.
        latent: size Z of an embedding.
        metric: how embeddings are compared.
    """

    def __init__(self, memory: MemoryNetwork, latent: int, metric: Metric) -> None:
        super().__init__()
        self.memory, self.embedding, self.metric = memory, nn.Linear(memory.size, latent), metric

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read the next steps of B trials; return embeddings ``[B, L, Z]``, and the memory after the last steps."""
        outputs, memory = self.memory(inputs, memory, lengths)
        return self.metric.compared(self.embedding(outputs)), memory


class EmbeddingActorCritic(KnowingActorCritic):
    """Policy and critic on observation and embedding, without gradients into the encoder.

    The embedding is that of the episodes before: what is known at an episode's first step is kept until its end.

    Args:
        encoder: encoder of the embeddings.
        observation_size: size of the observation, which comes first in a step's inputs.
        latent: size of an embedding.
        hidden_sizes: units of the hidden layers of policy and critic.
        head: head of the action distributions.
        activation: between layers of policy and critic.
    """

    def __init__(
        self,
        encoder: TaskEmbedder,
        observation_size: int,
        latent: int,
        hidden_sizes: Sequence[int],
        head: ActionHead,
        activation: Elementwise,
    ) -> None:
        super().__init__()
        self.encoder, self.head, self._observation_size, self._latent = encoder, head, observation_size, latent
        sizes = [observation_size + latent, *hidden_sizes]
        self.policy = perceptron_with_head(sizes, head.size, 0.01, activation)
        self.critic = perceptron_with_head(sizes, 1, 1.0, activation)

    def initial(self, trials: int) -> Memory:
        """Return the initial memory of a trial."""
        memory = self.encoder.memory.initial(trials)
        return {"embedding": self.encoder.embedding.weight.new_zeros(trials, self._latent), **memory}

    def inferred(self, inputs: Tensor, memory: Memory, lengths: Tensor | None) -> tuple[Tensor, Memory]:
        """Return observations and embeddings."""
        own = {name: value for name, value in memory.items() if name != "embedding"}
        with torch.no_grad():
            embeddings, own = self.encoder(inputs, own, lengths)
        # The step in which the episode started, which may be before these steps; the flag is the last of the inputs.
        numbers = torch.arange(inputs.shape[1], device=inputs.device)
        start = torch.where(inputs[..., -1] > 0, numbers, -1).cummax(1).values.unsqueeze(-1)
        here = embeddings.gather(1, start.clamp(min=0).expand_as(embeddings))
        kept = torch.where(start < 0, memory["embedding"].unsqueeze(1), here)
        known = torch.cat([inputs[..., : self._observation_size], kept], -1)
        return known, {"embedding": last_steps(kept, lengths), **own}


@register_learner
class MetricLearner(TrialPpoLearner):
    """A policy on an embedding of its trial, which is learned by comparing trials."""

    name: ClassVar[str] = "metric"
    numbers: ClassVar[int] = 2  # 2: the critic knows how much of its own trial may be ahead
    config_class: ClassVar[type] = MetricConfig
    config: MetricConfig
    metrics: ClassVar[Mapping[str, str]] = {
        **TrialPpoLearner.metrics,
        "metric_loss": "loss of the metric that trains the embedding of a task, mean over the update's steps",
        "metric_gradient_norm": "mean Euclidean norm of its gradient",
    }
    _norms: ClassVar[Mapping[str, str]] = {
        **TrialPpoLearner._norms,
        "metric_gradient_norm": "the gradient of the metric loss",
    }
    network: EmbeddingActorCritic

    def __init__(self, family: TaskFamily, config: MetricConfig, seed: int, device: torch.device) -> None:
        super().__init__(family, config, seed, device)
        parameters, lr = self.network.encoder.parameters(), config.metric_learning_rate
        self._encoder_optimizer = make_optimizer(config.optimizer, parameters, lr, fused=True)
        self._optimizers.append(self._encoder_optimizer)

    def make_network(self, family: TaskFamily) -> EmbeddingActorCritic:
        """Return encoder, policy and critic."""
        config = self.config
        memory = make_memory(config, self.inputs.size, config.encoder_size)
        encoder = TaskEmbedder(memory, config.latent_size, METRICS[config.task_encoder](config.latent_size))
        sizes = self.inputs.observation_size, config.latent_size, config.hidden_sizes
        activation = choose_activation(config.activation, torch.tanh)
        return EmbeddingActorCritic(encoder, *sizes, ActionHead(family.action_space), activation)

    def update(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Update the policy on the iteration's trials, then the encoder.

        Raises:
            InputError: if a task has a single trial, so that there is nothing to compare.
            RunError: when a gradient is NaN or infinite; the learner is then unchanged.
        """
        if rollouts[0].rewards.shape[1] < 2:
            raise InputError("metric compares trials of one task: it needs --episodes-per-task 2 or more")
        return super().update(rollouts)

    def _learn(self, trials: Trials, rollouts: Sequence[Rollout]) -> dict[str, Tensor | float]:
        # The policy is updated first: its likelihood ratios start at 1 only with the embeddings that it acted on.
        fitted = super()._learn(trials, rollouts)
        read = rollouts[0].rewards.shape[2] + 1  # the first episode, and the step in which its embedding is acted on
        begun = Trials(**{name: value[:, :read] for name, value in vars(trials).items()})
        return {**fitted, **self.fit_encoder(begun, rollouts[0].num_tasks)}

    def fit_encoder(self, trials: Trials, num_tasks: int) -> dict[str, Tensor]:
        """Minimise the metric's loss in several steps, each on some of the tasks.

        Only first episodes are compared, in which the policy knew nothing of the task. Otherwise it would be enough to
        recognise where the policy went because of what it already knew.

        Args:
            trials: the first episode and the step after it, or more, of this process's trials, sorted by task.
            num_tasks: number of its tasks.
        """
        own, total = self.processes.rows(num_tasks)
        by_task = torch.arange(len(trials.rewards), device=self._device).view(num_tasks, -1)
        losses, norms = [], []
        for step in range(self.config.metric_updates):
            stream = generator(self._seed, "metric", self._updates, step)
            numbers = torch.randperm(total, generator=stream)[: self.config.metric_tasks]
            places = ((numbers >= own.start) & (numbers < own.stop)).nonzero().squeeze(1)
            noise = BatchGenerator(stream, own_or_first(places), len(numbers))
            rows = by_task[send(own_or_first(numbers[places] - own.start), self._device)]
            support, query = self._compared(trials, rows, noise)
            joined = (self.processes.joined(each[: len(places)]) for each in (support, query))
            loss = self.network.encoder.metric.loss(*joined)
            losses.append(loss.detach())
            norms.append(self._encoder_step(loss))
        means = [torch.stack(values).double().mean() for values in (losses, norms)]
        return {"metric_loss": self.processes.mean(means[0]), "metric_gradient_norm": means[1]}

    def _compared(self, trials: Trials, rows: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return embeddings ``[M, 2, Z]`` of two trials of each of M tasks: in the first episode, and right after it.

        Args:
            trials: all trials.
            rows: numbers ``[M, R]`` of the tasks' trials.
            noise: of M rows; drawn on the CPU, as are the tasks.
        """
        order = send(draw_rows(torch.rand, rows.shape, noise).argsort(1)[:, :2], self._device)
        places = send(draw_rows(torch.rand, (len(rows), 2, 1), noise), self._device)
        chosen = trials[rows.gather(1, order).flatten()]
        with torch.no_grad():  # a learned observation encoder belongs to the policy
            inputs = self.trial_inputs(chosen)
        encoder = self.network.encoder
        embeddings, _ = encoder(inputs, encoder.memory.initial(len(inputs)))
        first = ((chosen.starts.cumsum(1) == 1) & chosen.valid).sum(1, keepdim=True)
        steps = torch.cat([(places.flatten(0, 1) * first).long(), first.clamp(max=inputs.shape[1] - 1)], 1)
        picked = embeddings[torch.arange(len(steps), device=self._device)[:, None], steps]
        support, query = picked.view(len(rows), 2, 2, -1).unbind(1)
        return support, query

    def _encoder_step(self, loss: Tensor) -> Tensor:
        """Take one step on the encoder; return the gradient's norm."""
        parameters = list(self.network.encoder.parameters())
        self._encoder_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.processes.average_gradients(parameters)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self._encoder_optimizer.step()
        return norm

    @torch.no_grad()
    def task_embeddings(self, trials: Trials) -> Tensor:
        """Return the embedding that the policy acts on at each step; see ``TaskEmbedding``."""
        known, _ = self.network.inferred(self.trial_inputs(trials), self.network.initial(len(trials.rewards)), None)
        return known[..., self.inputs.observation_size :]

    def state_dict(self) -> dict[str, Any]:
        """Return the policy's state and the moments of the encoder's optimiser."""
        return {**super().state_dict(), "encoder_moments": moments(self._encoder_optimizer)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        restore_moments(self._encoder_optimizer, state["encoder_moments"])
