"""VariBAD's networks: from trials to beliefs, from beliefs to predictions, from observation and belief to actions."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory, MemoryNetwork
from metarl.agents.in_context.step_inputs import ActionDistribution, ActionHead
from metarl.agents.in_context.trial_learner import TrialNetwork, small_layer
from metarl.distributions import DiagonalGaussian


def perceptron(sizes: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """Return hidden layers of these sizes, the inputs' being the first, each followed by the activation."""
    layers = [nn.Sequential(nn.Linear(inputs, outputs), activation()) for inputs, outputs in pairwise(sizes)]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """Reads a trial into a Gaussian belief about its task: inputs embedded, a memory, a mean and a log variance.

    Before anything is learned every belief is close to the standard normal.

    Args:
        embedding: layer of a step's inputs.
        memory: reads the embedded steps.
        latent: size of what describes a task.
    """

    def __init__(self, embedding: nn.Module, memory: MemoryNetwork, latent: int) -> None:
        super().__init__()
        self.embedding, self.memory = embedding, memory
        self.mean, self.log_variance = small_layer(memory.size, latent), small_layer(memory.size, latent)

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[DiagonalGaussian, Memory]:
        """Read on in B trials; see ``MemoryNetwork``.

        Returns:
            Beliefs with tensors ``[B, L, latent]``, and the memory after each trial's last step.
        """
        outputs, memory = self.memory(self.embedding(inputs), memory, lengths)
        return DiagonalGaussian(self.mean(outputs), self.log_variance(outputs) / 2), memory


class Decoder(nn.Module):
    """Predicts what steps bring in the tasks that latents describe.

    Args:
        latent: size of a task's description.
        features: size of a step's features.
        hidden_sizes: of layers with rectified units.
        outputs: size of a prediction.
    """

    def __init__(self, latent: int, features: int, hidden_sizes: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.of_latent, self.of_step = nn.Linear(latent, hidden_sizes[0]), nn.Linear(features, hidden_sizes[0], False)
        self.layers = perceptron(hidden_sizes, nn.ReLU)
        self.last = nn.Linear(hidden_sizes[-1], outputs)

    def forward(self, latents: Tensor, steps: Tensor) -> Tensor:
        """Return predictions ``[B, K, M, outputs]`` of pairs of latents ``[B, K, latent]`` and steps ``[B, M, D]``.

        The first layer is linear in both, so its two parts are computed once for each, not once for each pair.
        """
        hidden = self.of_latent(latents).unsqueeze(2) + self.of_step(steps).unsqueeze(1)
        predictions: Tensor = self.last(self.layers(hidden.relu()))
        return predictions


class BeliefActorCritic(TrialNetwork):
    """Policy and critic on observation and belief, from which no gradient flows into the encoder.

    Args:
        encoder: of the beliefs.
        decoders: what trains it; they do not act.
        observation_size: of the part of a step's inputs that comes first.
        latent: size of what describes a task.
        hidden_sizes: of policy and of critic.
        head: makes action distributions.
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
        sizes = [observation_size + 2 * latent, *hidden_sizes]
        self.policy, self.critic = (
            nn.Sequential(perceptron(sizes, nn.Tanh), small_layer(sizes[-1], outputs, gain))
            for outputs, gain in ((head.size, 0.01), (1, 1.0))
        )

    def initial(self, trials: int) -> Memory:
        """Return what is remembered before a trial's first step."""
        return self.encoder.memory.initial(trials)

    def forward(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Tensor, Memory]:
        """Read on in B trials."""
        with torch.no_grad():
            belief, memory = self.encoder(inputs, memory, lengths)
        known = torch.cat([inputs[..., : self._observation_size], belief.mean, 2 * belief.log_std], -1)
        return self.head(self.policy(known)), self.critic(known).squeeze(-1), memory
