"""AMAGO's networks: one memory for the policies and the critics of all discounts."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory
from metarl.agents.in_context.perceptrons import Perceptrons
from metarl.agents.in_context.return_encodings import ReturnEncoding, Spread
from metarl.agents.in_context.soft_actions import BoxActions, SoftActions
from metarl.agents.in_context.step_inputs import ActionDistribution
from metarl.agents.in_context.trial_learner import TrialPolicy
from metarl.agents.in_context.trial_reader import TrialReader
from metarl.networks.activations import Elementwise
from metarl.numerics.distributions import EDGE, Categorical, SquashedGaussian
from metarl.numerics.noise import draw_rows

# With a narrower Gaussian, the gradients of the log-probability of an action to imitate overflow.
LEAST_LOG_STD = -5.0


@dataclass(frozen=True)
class MlpShape:
    """Units of the hidden layers of MLPs, and the activation between layers."""

    hidden_sizes: Sequence[int]
    activation: Elementwise


class ActionValues(nn.Module, ABC):
    """An ensemble of C critics, each for G discounts.

    Attributes:
        horizons: those of the discounts, 1 / (1 - discount), in symlog ``[G, 1]``.

    Args:
        features: number F of features.
        actions: the kind of actions.
        discounts: G numbers below 1.
        critics: C.
        code: how outputs express returns.
        shape: of the MLPs.
        samples: number K of actions that estimate an expectation in a Box.
    """

    horizons: Tensor

    def __init__(
        self,
        features: int,
        actions: SoftActions,
        discounts: Sequence[float],
        critics: int,
        code: ReturnEncoding,
        shape: MlpShape,
        samples: int,
    ) -> None:
        super().__init__()
        self.code, self._discounts, self._actions, self._samples = code, len(discounts), actions.size, samples
        horizons = [math.log1p(1 / (1 - discount)) for discount in discounts]
        self.register_buffer("horizons", torch.tensor(horizons).unsqueeze(-1), persistent=False)
        inputs, copies = self.sizes(features)
        sizes = [inputs, *shape.hidden_sizes, copies * code.outputs]
        self.heads = Perceptrons(critics, sizes, torch.default_generator, shape.activation)
        self.heads.biases[-1].data.add_(code.initial().repeat(copies))

    @abstractmethod
    def sizes(self, features: int) -> tuple[int, int]:
        """Return the number of inputs of a critic, and the number of returns among its outputs."""

    @abstractmethod
    def taken(self, features: Tensor, actions: Tensor) -> Tensor:
        """Return the outputs ``[C, B, L, G, O]`` for actions ``[B, L, A]`` at features ``[B, L, F]``."""

    @abstractmethod
    def expected(self, features: Tensor, policies: Any, noise: torch.Generator) -> Tensor:
        """Return each critic's expected returns ``[C, B, L, G]``; the gradient is that of the policies alone.

        Args:
            features: ``[B, L, F]``.
            policies: of each discount, with tensors ``[B, L, G, A]``.
            noise: generator of the random numbers of a batch of B rows.
        """


class DiscreteValues(ActionValues):
    """Critics that give the values of all A actions, so that expectations are exact."""

    def sizes(self, features: int) -> tuple[int, int]:
        """Return the features, and a return for each discount and action."""
        return features, self._discounts * self._actions

    def _all(self, features: Tensor) -> Tensor:
        """Return the outputs ``[C, B, L, G, A, O]`` for all actions."""
        outputs: Tensor = self.heads(features)
        return outputs.view(*outputs.shape[:-1], self._discounts, self._actions, self.code.outputs)

    def taken(self, features: Tensor, actions: Tensor) -> Tensor:
        """Return the outputs for one-hot actions."""
        outputs = self._all(features)
        index = actions.argmax(-1).view(1, *actions.shape[:2], 1, 1, 1)
        index = index.expand(*outputs.shape[:4], 1, outputs.shape[5])
        return outputs.gather(4, index).squeeze(4)

    def expected(self, features: Tensor, policies: Categorical, noise: torch.Generator) -> Tensor:
        """Return expected returns, exact."""
        with torch.no_grad():
            values = self.code.values(self._all(features))
        return (policies.logits.softmax(-1) * values).sum(-1)


class BoxValues(ActionValues):
    """Critics that read an action and a discount."""

    def sizes(self, features: int) -> tuple[int, int]:
        """Return the features, the discount and the action; and a single return."""
        return features + 1 + self._actions, 1

    def _outputs(self, features: Tensor, actions: Tensor, fixed: bool = False) -> Tensor:
        """Return the outputs ``[C, ..., G, O]`` for actions ``[..., G, A]`` at features ``[..., F]``."""
        shape = actions.shape[:-1]
        inputs = [features.unsqueeze(-2).expand(*shape, -1), self.horizons.expand(*shape, -1), actions]
        found: Tensor = self.heads(torch.cat(inputs, -1), fixed)
        return found

    def taken(self, features: Tensor, actions: Tensor) -> Tensor:
        """Return the outputs for actions in units of [-1, 1]."""
        return self._outputs(features, actions.unsqueeze(-2).expand(-1, -1, self._discounts, -1))

    def expected(self, features: Tensor, policies: SquashedGaussian, noise: torch.Generator) -> Tensor:
        """Return the means over K sampled actions."""
        rows, length = features.shape[:2]
        shape = (rows, length, self._samples, self._discounts, self._actions)
        draws = draw_rows(torch.randn, shape, noise, device=features.device)
        actions, _ = policies.map(lambda tensor: tensor.unsqueeze(2)).of_noise(draws)
        features = features.unsqueeze(2).expand(-1, -1, self._samples, -1)
        return self.code.values(self._outputs(features.detach(), actions, fixed=True)).mean(3)


class AmagoNetworks(TrialPolicy):
    """A memory, the policies and the critics of all discounts, and targets; initialised from torch's global generator.

    The targets are copies of policies and critics, but not of the memory that both read.

    Args:
        reader: reads trials.
        actions: the kind of actions.
        discounts: in ascending order; the policy of the last one acts.
        critics: number C of critics.
        code: how critics express returns.
        shape: of the MLPs of policies and critics.
        samples: number of actions that estimate an expectation in a Box.
    """

    exploration: Tensor

    def __init__(
        self,
        reader: TrialReader,
        actions: SoftActions,
        discounts: Sequence[float],
        critics: int,
        code: ReturnEncoding,
        shape: MlpShape,
        samples: int,
    ) -> None:
        super().__init__()
        self.reader, self.actions, self._discounts = reader, actions, len(discounts)
        kind: type[ActionValues] = BoxValues if isinstance(actions, BoxActions) else DiscreteValues
        critic = kind(reader.size, actions, discounts, critics, code, shape, samples)
        sizes = [reader.size, *shape.hidden_sizes, self._discounts * actions.policy_outputs]
        self.policies, self.critics = Perceptrons(1, sizes, torch.default_generator, shape.activation), critic
        self.target_policies = copy.deepcopy(self.policies).requires_grad_(False)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.spread = Spread(self._discounts)
        self.register_buffer("exploration", torch.zeros(()))

    def initial(self, trials: int) -> Memory:
        """Return the initial memory."""
        return self.reader.memory.initial(trials)

    def policies_at(self, features: Tensor, heads: Perceptrons) -> Any:
        """Return the policies of all discounts, with tensors ``[B, L, G, A]``, at features ``[B, L, F]``."""
        outputs: Tensor = heads(features)[0]
        outputs = outputs.view(*outputs.shape[:-1], self._discounts, self.actions.policy_outputs)
        policies = self.actions.policy(outputs)
        if isinstance(policies, SquashedGaussian):
            return SquashedGaussian(policies.mean, policies.log_std.clamp(min=LEAST_LOG_STD))
        return policies

    def policy_and_memory(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Memory]:
        """Read the next steps of B trials; return the policy of the largest discount, with its exploration."""
        features, memory = self.reader(inputs, memory, lengths)
        policy = self.policies_at(features, self.policies).map(lambda tensor: tensor[..., -1, :])
        return explored(policy, self.exploration), memory

    @torch.no_grad()
    def follow(self, share: float) -> None:
        """Move the targets towards policies and critics, which get this weight."""
        for target, trained in ((self.target_policies, self.policies), (self.target_critics, self.critics)):
            torch._foreach_lerp_(list(target.parameters()), list(trained.parameters()), share)


@dataclass(frozen=True)
class NoisyActions(SquashedGaussian):
    """A squashed Gaussian with Gaussian noise on its actions, which are then clipped to [-1, 1].

    The noise is added after tanh, whose slope vanishes at the bounds, where many policies act. Its standard deviations
    ``noise`` ``[..., A]`` do not count in densities and divergences.
    """

    noise: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one action ``[..., A]`` from each distribution."""
        actions = super().sample(generator)
        draws = draw_rows(torch.randn, actions.shape, generator, device=actions.device, dtype=actions.dtype)
        return torch.addcmul(actions, self.noise, draws).clamp(-EDGE, EDGE)


def explored(policy: Any, share: Tensor) -> ActionDistribution:
    """Return a policy with exploration.

    Args:
        policy: categoricals, or squashed Gaussians.
        share: probability of a uniform action; in a Box, the standard deviation of noise on each action.
    """
    if isinstance(policy, SquashedGaussian):
        return NoisyActions(policy.mean, policy.log_std, share * torch.ones_like(policy.mean))
    uniform = (share / policy.logits.shape[-1]).log()
    return Categorical(torch.logaddexp(policy.logits.log_softmax(-1) + torch.log1p(-share), uniform))
