"""VariBAD's networks: encoder (trials to beliefs), decoders (beliefs to predictions), policy and critic."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory, MemoryNetwork
from metarl.agents.in_context.step_inputs import ActionDistribution, ActionHead
from metarl.agents.in_context.trial_learner import TrialNetwork, small_layer
from metarl.distributions import DiagonalGaussian


def perceptron(sizes: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """Return hidden layers, each followed by the activation; ``sizes`` starts with the inputs."""
    layers = [nn.Sequential(nn.Linear(inputs, outputs), activation()) for inputs, outputs in pairwise(sizes)]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """Maps a trial to a Gaussian belief about its task: an embedding, a memory, and linear mean and log variance.

    Initially every belief is close to the standard normal.

    Args:
        embedding: layer that embeds a step's inputs.
        memory: memory that reads the embedded steps.
        latent: number of latent variables.
    """

    def __init__(self, embedding: nn.Module, memory: MemoryNetwork, latent: int) -> None:
        super().__init__()
        self.embedding, self.memory = embedding, memory
        self.mean, self.log_variance = small_layer(memory.size, latent), small_layer(memory.size, latent)

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[DiagonalGaussian, Memory]:
        """Read the next steps of B trials; see ``MemoryNetwork``.

        Returns:
            Beliefs with tensors ``[B, L, latent]``, and the memory after each trial's last step.
        """
        outputs, memory = self.memory(self.embedding(inputs), memory, lengths)
        return DiagonalGaussian(self.mean(outputs), self.log_variance(outputs) / 2), memory


class Decoder(nn.Module):
    """Predicts outcomes of steps in the tasks described by latents.

    Args:
        latent: number of latent variables.
        features: size of a step's features.
        hidden_sizes: units of the hidden layers (ReLU).
        outputs: size of a prediction.
    """

    def __init__(self, latent: int, features: int, hidden_sizes: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.of_latent, self.of_step = nn.Linear(latent, hidden_sizes[0]), nn.Linear(features, hidden_sizes[0], False)
        self.layers = perceptron(hidden_sizes, nn.ReLU)
        self.last = nn.Linear(hidden_sizes[-1], outputs)

    def forward(self, latents: Tensor, steps: Tensor) -> Tensor:
        """Return predictions ``[B, K, M, outputs]`` for pairs of latents ``[B, K, latent]`` and steps ``[B, M, D]``.

        The first layer is linear in both, so its two parts are computed once each, not once for each pair.
        """
        hidden = self.of_latent(latents).unsqueeze(2) + self.of_step(steps).unsqueeze(1)
        predictions: Tensor = self.last(self.layers(hidden.relu_()))
        return predictions


class KnowingActorCritic(TrialNetwork):
    """Policy and critic on what is inferred at each step, without gradients into what infers it."""

    policy: nn.Module
    critic: nn.Module
    head: ActionHead

    @staticmethod
    def heads(sizes: Sequence[int], head: ActionHead) -> tuple[nn.Module, nn.Module]:
        """Return policy and critic with layers of these sizes, of which the first is that of their inputs."""
        policy, critic = (
            nn.Sequential(perceptron(sizes, nn.Tanh), small_layer(sizes[-1], outputs, gain))
            for outputs, gain in ((head.size, 0.01), (1, 1.0))
        )
        return policy, critic

    @abstractmethod
    def inferred(self, inputs: Tensor, memory: Memory, lengths: Tensor | None) -> tuple[Tensor, Memory]:
        """Return the inputs of policy and critic in the next steps of B trials, and the memory after the last ones."""

    def forward(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Tensor, Memory]:
        """Read the next steps of B trials."""
        known, memory = self.inferred(inputs, memory, lengths)
        return self.head(self.policy(known)), self.critic(known).squeeze(-1), memory

    def known(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return what is inferred: its network is not trained by the policy's gradient."""
        return self.inferred(inputs, self.initial(len(inputs)), lengths)[0]

    def read(self, known: Tensor, lengths: Tensor) -> tuple[ActionDistribution, Tensor]:
        """Return action distributions and values on what is inferred."""
        return self.head(self.policy(known)), self.critic(known).squeeze(-1)


class BeliefActorCritic(KnowingActorCritic):
    """Policy and critic on observation and belief.

    Args:
        encoder: encoder of the beliefs.
        decoders: decoders used only for training the encoder.
        observation_size: size of the observation, which comes first in a step's inputs.
        latent: number of latent variables.
        hidden_sizes: units of the hidden layers of policy and critic.
        head: head of the action distributions.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoders: nn.ModuleDict,
        observation_size: int,
        latent: int,
        hidden_sizes: Sequence[int],
        head: ActionHead,
    ) -> None:
        super().__init__()
        self.encoder, self.decoders, self.head = encoder, decoders, head
        self._observation_size = observation_size
        self.policy, self.critic = self.heads([observation_size + 2 * latent, *hidden_sizes], head)

    def initial(self, trials: int) -> Memory:
        """Return the initial memory of a trial."""
        return self.encoder.memory.initial(trials)

    def inferred(self, inputs: Tensor, memory: Memory, lengths: Tensor | None) -> tuple[Tensor, Memory]:
        """Return observations, and means and log variances of the beliefs."""
        with torch.no_grad():
            belief, memory = self.encoder(inputs, memory, lengths)
        return torch.cat([inputs[..., : self._observation_size], belief.mean, 2 * belief.log_std], -1), memory
