"""Stochastic policies as functions of their parameters, for N tasks at once."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from gymnasium import spaces
from tensordict import TensorDict
from torch import Tensor

from metarl.errors import InputError
from metarl.families.spaces import features, one_line, require_actions, require_observations
from metarl.networks.activations import find_activation
from metarl.networks.mlp import init_mlp, mlp
from metarl.numerics.distributions import Bernoulli, Categorical, DiagonalGaussian, Distribution, MultiCategorical
from metarl.validation import require_sizes

MIN_LOG_STD = math.log(1e-6)
Logits = Categorical | MultiCategorical | Bernoulli

PolicyKind = Literal["auto", "gaussian", "categorical", "bernoulli"]
KINDS: dict[type[spaces.Space[Any]], PolicyKind] = {
    spaces.Box: "gaussian",
    spaces.Discrete: "categorical",
    spaces.MultiDiscrete: "categorical",
    spaces.MultiBinary: "bernoulli",
}
# Every task has its own copy of the policy's parameters, which limits pixels times hidden units.
MAX_FIRST_LAYER = 1_000_000
# The parameter ``[C]`` that is concatenated to the observation, if a policy has one.
CONTEXT = "context"


class Policy(ABC):
    """A multilayer perceptron from observations to an action distribution.

    Args:
        observation_space: Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple of them; see
            ``spaces.features``.
        outputs: size of the last layer.
        hidden_sizes: units of the hidden layers.
        activation: see ``networks.find_activation``.
        context_size: size of the parameter ``context``, an additional input, which ``init_params`` leaves out.

    Raises:
        InputError: for an unsupported or too large observation space, an unknown activation or an empty layer.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        outputs: int,
        hidden_sizes: Sequence[int],
        activation: str,
        context_size: int = 0,
    ) -> None:
        require_observations(observation_space)
        require_sizes("hidden_sizes", hidden_sizes)
        self._space = observation_space
        self._sizes = [spaces.flatdim(observation_space) + context_size, *hidden_sizes, outputs]
        self._require_small()
        self._activation = find_activation(activation)

    def init_params(self, generator: torch.Generator) -> TensorDict:
        """Draw initial parameters, un-stacked, on the generator's device."""
        return init_mlp(self._sizes, generator)

    def _require_small(self) -> None:
        weights = self._sizes[0] * self._sizes[1]
        if weights > MAX_FIRST_LAYER:
            raise InputError(
                f"adaptation by gradient gives each task its own policy, whose first layer has {weights:,} weights on "
                f"{one_line(self._space)} (at most {MAX_FIRST_LAYER:,}); use rl2, whose encoder is shared by all tasks"
            )

    @abstractmethod
    def distribution(self, params: TensorDict, observations: Tensor) -> Distribution:
        """Return the action distributions at ``observations`` ``[N, ..., *observation]`` under params ``[N]``."""

    def act(
        self, params: TensorDict, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Distribution]:
        """Choose one action for each observation; return the actions and their distributions."""
        distribution = self.distribution(params, observations)
        return distribution.mode() if deterministic else distribution.sample(generator), distribution

    @property
    def head(self) -> list[str]:
        """Names of the last layer's parameters."""
        last = len(self._sizes) - 2
        return [f"bias_{last}", f"weight_{last}"]

    def features(self, observations: Tensor) -> Tensor:
        """Return observations ``[N, ..., *observation]`` as network inputs ``[N, ..., D]``."""
        return features(self._space, observations)

    def _network(self, params: TensorDict, observations: Tensor) -> Tensor:
        features = self.features(observations)
        inputs = features.flatten(1, -2)
        if CONTEXT in params.keys():
            inputs = torch.cat([inputs, params[CONTEXT].unsqueeze(1).expand(-1, inputs.shape[1], -1)], -1)
        outputs = mlp(params, inputs, self._activation)
        return outputs.view(*features.shape[:-1], outputs.shape[-1])


class GaussianPolicy(Policy):
    """A diagonal Gaussian whose mean is the network's output, in units of [-1, 1] for bounded action spaces.

    The standard deviation is one parameter per action dimension, independent of the state. It is stored as its
    logarithm, starts at 1, is adapted in the inner loop like every other parameter, and is clamped to at least 1e-6.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        hidden_sizes: Sequence[int],
        activation: str,
        context_size: int = 0,
    ) -> None:
        super().__init__(observation_space, spaces.flatdim(action_space), hidden_sizes, activation, context_size)

    def init_params(self, generator: torch.Generator) -> TensorDict:
        """Draw initial parameters, un-stacked; ``log_std`` is ``[A]``."""
        params = super().init_params(generator)
        params["log_std"] = torch.zeros(self._sizes[-1], device=generator.device)
        return params

    def distribution(self, params: TensorDict, observations: Tensor) -> DiagonalGaussian:
        """Return Gaussians with means ``[N, ..., A]`` and log standard deviations that broadcast against them."""
        mean = self._network(params, observations)
        log_std = params["log_std"].clamp(min=MIN_LOG_STD)
        return DiagonalGaussian(mean, log_std.view(log_std.shape[0], *[1] * (mean.ndim - 2), -1))


class LogitPolicy(Policy):
    """A discrete distribution whose logits are the network's output; see ``distribution_of_logits``."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        hidden_sizes: Sequence[int],
        activation: str,
        context_size: int = 0,
    ) -> None:
        self._action_space = action_space
        super().__init__(observation_space, spaces.flatdim(action_space), hidden_sizes, activation, context_size)

    def distribution(self, params: TensorDict, observations: Tensor) -> Logits:
        """Return distributions with logits ``[N, ..., A]`` (``[N, ..., K, A]`` for a MultiDiscrete space)."""
        return distribution_of_logits(self._action_space, self._network(params, observations))


def distribution_of_logits(space: spaces.Space[Any], logits: Tensor) -> Logits:
    """Return a policy's action distribution in a discrete space.

    Args:
        space: Discrete (a categorical), MultiDiscrete (a product of categoricals) or MultiBinary (Bernoulli).
        logits: ``[..., D]`` with D = ``gymnasium.spaces.flatdim(space)``.
    """
    if isinstance(space, spaces.MultiBinary):
        return Bernoulli(logits)
    if isinstance(space, spaces.MultiDiscrete):
        return MultiCategorical.of(logits, space.nvec.reshape(-1).tolist())
    return Categorical(logits)


def make_policy(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    kind: PolicyKind = "auto",
    context_size: int = 0,
) -> Policy:
    """Make the policy for an action space: Gaussian for Box, logits for discrete spaces.

    Its actions are elements of ``spaces.unit_space(action_space)``.

    Args:
        observation_space: Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple of them.
        action_space: Box, Discrete, MultiDiscrete or MultiBinary.
        hidden_sizes: units of the hidden layers.
        activation: see ``networks.find_activation``.
        kind: ``auto``, or a required kind of policy.
        context_size: size of the context parameter.

    Raises:
        InputError: if ``kind`` does not fit the action space, or there is no policy for a space.
    """
    require_actions(action_space)
    fitting = next(kind for known, kind in KINDS.items() if isinstance(action_space, known))
    if kind not in ("auto", fitting):
        raise InputError(f"a {kind} policy cannot act in {one_line(action_space)}; use --policy {fitting} (or auto)")
    if isinstance(action_space, spaces.Box):
        return GaussianPolicy(observation_space, action_space, hidden_sizes, activation, context_size)
    return LogitPolicy(observation_space, action_space, hidden_sizes, activation, context_size)
