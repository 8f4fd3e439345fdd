"""VariBAD's networks: encoder (trials to beliefs), decoders (beliefs to predictions), policy and critic."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory, MemoryNetwork
from metarl.agents.in_context.observation_scale import ObservationScale
from metarl.agents.in_context.perceptrons import perceptron, small_layer
from metarl.agents.in_context.step_inputs import ActionDistribution, ActionHead
from metarl.agents.in_context.trial_learner import TrialNetwork
from metarl.networks.activations import Elementwise, overwriting
from metarl.numerics.distributions import DiagonalGaussian


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
        hidden_sizes: units of the hidden layers.
        outputs: size of a prediction.
        activation: between layers.
    """

    def __init__(
        self, latent: int, features: int, hidden_sizes: Sequence[int], outputs: int, activation: Elementwise
    ) -> None:
        super().__init__()
        self.of_latent, self.of_step = nn.Linear(latent, hidden_sizes[0]), nn.Linear(features, hidden_sizes[0], False)
        self._activation, self.layers = overwriting(activation), perceptron(hidden_sizes, activation)
        self.last = nn.Linear(hidden_sizes[-1], outputs)

    def forward(self, latents: Tensor, steps: Tensor) -> Tensor:
        """Return predictions ``[B, K, M, outputs]`` for pairs of latents ``[B, K, latent]`` and steps ``[B, M, D]``.

        The first layer is linear in both, so its two parts are computed once each, not once for each pair.
        """
        hidden = self.of_latent(latents).unsqueeze(2) + self.of_step(steps).unsqueeze(1)
        predictions: Tensor = self.last(self.layers(self._activation(hidden)))
        return predictions


class KnowingActorCritic(TrialNetwork):
    """Policy and critic on what is inferred at each step, without gradients into what infers it."""

    policy: nn.Module
    critic: nn.Module
    head: ActionHead

    def embedded(self, known: Tensor) -> Tensor:
        """Return what the layers of policy and critic read of what is inferred; by default all of it."""
        return known

    @abstractmethod
    def inferred(self, inputs: Tensor, memory: Memory, lengths: Tensor | None) -> tuple[Tensor, Memory]:
        """Return the inputs of policy and critic in the next steps of B trials, and the memory after the last ones."""

    def forward(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Tensor, Memory]:
        """Read the next steps of B trials."""
        known, memory = self.inferred(inputs, memory, lengths)
        return *self.read(known, lengths), memory

    def known(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return what is inferred: its network is not trained by the policy's gradient."""
        return self.inferred(inputs, self.initial(len(inputs)), lengths)[0]

    def read(self, known: Tensor, lengths: Tensor | None) -> tuple[ActionDistribution, Tensor]:
        """Return action distributions and values on what is inferred."""
        read = self.embedded(known)
        return self.head(self.policy(read)), self.critic(read).squeeze(-1)


class PolicyInputs(nn.Module):
    """What policy and critic read: the observation and the belief's parameters, with an embedding of each if wanted.

    Args:
        sizes: size of an observation, and number of a belief's parameters.
        embeddings: units of the layer that embeds each; 0 for none.
        normalized: whether to normalise the belief's parameters.
        activation: after the embedding layers.

    Attributes:
        observation_size: size of the observation, which comes first.
        read_sizes: units of what is read of the observation, which comes first, and of the belief.
        scale: normalisation of the belief's parameters, if there is one.
    """

    def __init__(
        self, sizes: tuple[int, int], embeddings: tuple[int, int], normalized: bool, activation: Elementwise
    ) -> None:
        super().__init__()
        self.observation_size = sizes[0]
        self.read_sizes = tuple(units or size for size, units in zip(sizes, embeddings, strict=True))
        self.layers = nn.ModuleList(
            perceptron([size, units], activation) if units else nn.Identity()
            for size, units in zip(sizes, embeddings, strict=True)
        )
        self.scale = ObservationScale(sizes[1]) if normalized else None

    def forward(self, known: Tensor) -> Tensor:
        """Return what is read ``[B, L, size]`` of observations with the parameters of beliefs ``[B, L, D]``."""
        parts = torch.tensor_split(known, [self.observation_size], -1)
        return torch.cat([layer(part) for layer, part in zip(self.layers, parts, strict=True)], -1)


class BeliefActorCritic(KnowingActorCritic):
    """Policy and critic on observation and belief.

    Args:
        encoder: encoder of the beliefs.
        decoders: decoders used only for training the encoder.
        inputs: what policy and critic read.
        head: head of the action distributions.
        policy: from what is read to the head's inputs.
        critic: from what is read to a value.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoders: nn.ModuleDict,
        inputs: PolicyInputs,
        head: ActionHead,
        policy: nn.Module,
        critic: nn.Module,
    ) -> None:
        super().__init__()
        self.encoder, self.decoders, self.policy_inputs, self.head = encoder, decoders, inputs, head
        self.policy, self.critic = policy, critic

    def initial(self, trials: int) -> Memory:
        """Return the initial memory of a trial."""
        return self.encoder.memory.initial(trials)

    def embedded(self, known: Tensor) -> Tensor:
        """Return observations and beliefs, with an embedding of each if wanted."""
        read: Tensor = self.policy_inputs(known)
        return read

    def inferred(self, inputs: Tensor, memory: Memory, lengths: Tensor | None) -> tuple[Tensor, Memory]:
        """Return observations, and means and log variances of the beliefs, normalised if wanted."""
        with torch.no_grad():
            belief, memory = self.encoder(inputs, memory, lengths)
            parameters = parameters_of(belief)
            if self.policy_inputs.scale is not None:
                parameters = self.policy_inputs.scale(parameters)
        return torch.cat([inputs[..., : self.policy_inputs.observation_size], parameters], -1), memory


def parameters_of(belief: DiagonalGaussian) -> Tensor:
    """Return means and log variances ``[..., 2 * latent]`` of beliefs."""
    return torch.cat([belief.mean, 2 * belief.log_std], -1)
