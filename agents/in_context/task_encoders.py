"""PEARL's encoders: what they know of a task from its transitions, and what trains them.

Every transition is a Gaussian factor over a few numbers, and the evidence about a task is the product of its factors,
in any order. With the encoder *critic* (Rakelly et al. 2019) the numbers are the latent variables of the task: the
policy acts on a sample of the belief, and the critics' loss trains the encoder. With a metric, the policy acts on an
embedding of the belief's mean, which is trained to be alike in contexts of one task and to differ between tasks
(``task_metrics``); no gradient of the critics reaches it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from metarl.agents.in_context.perceptrons import Perceptrons
from metarl.agents.in_context.replay import Transitions
from metarl.agents.in_context.task_metrics import METRICS
from metarl.devices.processes import Processes
from metarl.errors import InputError
from metarl.networks.activations import Elementwise
from metarl.numerics.distributions import DiagonalGaussian
from metarl.numerics.noise import draw_rows
from metarl.seeding import global_stream

# Contexts of each task that are compared: two examples of it, and a query.
COMPARED = 3


@dataclass(frozen=True)
class Belief:
    """The evidence of transitions about F numbers: a product of Gaussian factors, one per transition.

    It is stored in natural parameters, in which products become sums; zeros mean no evidence.

    Shapes:
        precision: sum of the factors' precisions ``[..., F]``.
        shift: sum of the factors' precisions times means ``[..., F]``.
    """

    precision: Tensor
    shift: Tensor

    def __add__(self, other: "Belief") -> "Belief":
        """Return the product of both."""
        return Belief(self.precision + other.precision, self.shift + other.shift)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Belief":
        """Apply ``function`` to both tensors."""
        return Belief(function(self.precision), function(self.shift))

    def posterior(self) -> DiagonalGaussian:
        """Return the product of all factors and the prior, which is N(0, 1) for each number."""
        precision = 1 + self.precision
        return DiagonalGaussian(self.shift / precision, -0.5 * precision.log())


class DrawContexts(Protocol):
    """Draws contexts of the M tasks of a step of training; see ``TrialReplay.draw_contexts``."""

    def __call__(self, contexts: int, uninformed: bool = False) -> Transitions:
        """Return this many contexts of each task, ``[M, contexts, C]``."""


class Inferred(NamedTuple):
    """What an encoder infers from contexts of M tasks.

    Shapes:
        latents: what policy and critics are conditioned on, ``[M, Z]``.
        loss: this process's share of the encoder's own loss, ``[]``.
        measure: this process's share of the metric ``TaskEncoder.measure``, ``[]``.
    """

    latents: Tensor
    loss: Tensor
    measure: Tensor


class TaskEncoder(nn.Module, ABC):
    """Maps transitions of a task to the evidence about it, and the evidence to what the policy is conditioned on.

    Args:
        inputs: size of a transition's inputs.
        hidden_sizes: units of the hidden layers.
        size: number F of what the factors are about.
        dynamics: also read the next observation.
        stream: generator of the initial weights.
        activation: of the hidden layers.

    Attributes:
        measure: name of the metric in ``Inferred``.
        together: whether the tasks of a step of training are to be of one iteration.
    """

    measure: ClassVar[str]
    together: ClassVar[bool] = False

    def __init__(
        self,
        inputs: int,
        hidden_sizes: Sequence[int],
        size: int,
        dynamics: bool,
        stream: torch.Generator,
        activation: Elementwise,
    ) -> None:
        super().__init__()
        self.factors = Perceptrons(1, [inputs, *hidden_sizes, 2 * size], stream, activation)
        self.size, self._dynamics = size, dynamics

    def check(self, trials: int) -> None:
        """Raise ``InputError`` if this many trials of a task are too few to train the encoder; by default never."""

    def belief(self, steps: Transitions) -> Belief:
        """Return the joint evidence ``[..., F]`` of C transitions, whose tensors are ``[..., C, ...]``."""
        return self.evidence(steps).map(lambda tensor: tensor.sum(-2))

    def evidence(self, steps: Transitions) -> Belief:
        """Return the evidence ``[..., C, F]`` of each of C transitions; there is none where they are not valid."""
        seen = [steps.observations, steps.actions, steps.rewards.unsqueeze(-1)]
        inputs = torch.cat([*seen, steps.next_observations] if self._dynamics else seen, -1)
        means, outputs = self.factors(inputs)[0].chunk(2, -1)
        precisions = softplus(outputs) * steps.valid.unsqueeze(-1)
        return Belief(precisions, precisions * means)

    @abstractmethod
    def latents(self, belief: Belief, stream: torch.Generator) -> Tensor:
        """Return what an episode acts on, ``[..., Z]``."""

    @abstractmethod
    def likeliest(self, belief: Belief) -> Tensor:
        """Return what an episode with deterministic actions acts on, ``[..., Z]``."""

    @abstractmethod
    def inferred(self, draw: DrawContexts, weight: float, stream: torch.Generator, processes: Processes) -> Inferred:
        """Infer M tasks from contexts drawn for a step of training.

        Args:
            draw: draws contexts of them.
            weight: of this process's tasks among all; see ``TrialReplay.local_slots``.
            stream: of the step's noise.
            processes: the processes that take the step.
        """


class BeliefEncoder(TaskEncoder):
    """Latent variables with a Gaussian belief, trained by the critics' loss and the divergence from the prior.

    Args:
        kl_weight: weight of the KL divergence in the loss; the others are those of ``TaskEncoder``.
    """

    measure = "latent_kl"

    def __init__(
        self,
        inputs: int,
        hidden_sizes: Sequence[int],
        size: int,
        dynamics: bool,
        stream: torch.Generator,
        activation: Elementwise,
        kl_weight: float,
    ) -> None:
        super().__init__(inputs, hidden_sizes, size, dynamics, stream, activation)
        self._kl_weight = kl_weight

    def latents(self, belief: Belief, stream: torch.Generator) -> Tensor:
        """Return samples of the belief."""
        return belief.posterior().sample(stream)

    def likeliest(self, belief: Belief) -> Tensor:
        """Return the belief's mean."""
        return belief.posterior().mean

    def inferred(self, draw: DrawContexts, weight: float, stream: torch.Generator, processes: Processes) -> Inferred:
        """Sample the belief of one context of each task; gradients of the sample reach the encoder."""
        belief = self.belief(draw(1)).map(lambda tensor: tensor.squeeze(1)).posterior()
        latents, measure = belief.sample(stream), weight * divergence(belief)
        return Inferred(latents, self._kl_weight * measure, measure)


class MetricEncoder(TaskEncoder):
    """An embedding of the evidence, trained to distinguish tasks.

    Args:
        name: of the metric, in ``METRICS``.
        latent_size: number Z of an embedding.
        blind: share of the tasks of a step about which policy and critics get no information, as in a trial's first
            episode.
        seed: of the metric's own initial weights; the others are those of ``TaskEncoder``.
    """

    measure = "metric_loss"
    together = True  # the policies that collected different iterations would distinguish their tasks

    def __init__(
        self,
        inputs: int,
        hidden_sizes: Sequence[int],
        latent_size: int,
        dynamics: bool,
        stream: torch.Generator,
        activation: Elementwise,
        name: str,
        blind: float,
        seed: int,
    ) -> None:
        size = hidden_sizes[-1] if hidden_sizes else latent_size
        super().__init__(inputs, hidden_sizes, size, dynamics, stream, activation)
        self.head = Perceptrons(1, [size, *hidden_sizes, latent_size], stream, activation)
        with global_stream(seed, "metric"):
            self.metric = METRICS[name](latent_size)
        self.name, self._blind = name, blind

    def check(self, trials: int) -> None:
        """Raise ``InputError`` for a single trial: its parts are alike simply because of where the trial went."""
        if trials < 2:
            raise InputError(
                f"the task encoder {self.name} compares trials of one task: it needs --episodes-per-task 2 or more"
            )

    def latents(self, belief: Belief, stream: torch.Generator) -> Tensor:
        """Return embeddings; nothing is sampled."""
        return self.likeliest(belief)

    def likeliest(self, belief: Belief) -> Tensor:
        """Return embeddings, of length 1 where only their angles are compared."""
        embeddings: Tensor = self.head(belief.posterior().mean)[0]
        return self.metric.compared(embeddings)

    def inferred(self, draw: DrawContexts, weight: float, stream: torch.Generator, processes: Processes) -> Inferred:
        """Compare contexts of all processes' tasks; return embeddings of another context of each, as constants.

        Only episodes acted without knowledge of the task are compared. Otherwise it would be enough to recognise where
        the policy went because of what it already knew.
        """
        embedded = self.likeliest(self.belief(draw(COMPARED, uninformed=True)))
        joined = processes.joined(embedded if weight else embedded[:0])
        loss = self.metric.loss(joined[:, :2], joined[:, 2:])
        with torch.no_grad():
            shape, device = (len(embedded), 1), embedded.device
            informed = draw_rows(torch.rand, shape, stream, device=device) >= self._blind
            latents = self.likeliest(self.belief(draw(1)).map(lambda tensor: tensor[:, 0] * informed))
        return Inferred(latents, loss, loss)


def divergence(belief: DiagonalGaussian) -> Tensor:
    """Return the mean over tasks of the KL divergence of beliefs ``[M, Z]`` from the prior, in nats."""
    prior = DiagonalGaussian(torch.zeros_like(belief.mean), torch.zeros_like(belief.log_std))
    return belief.kl(prior).mean()
