"""What learners share that adapt by remembering: their inputs, acting through a trial, and reading a recorded one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory
from metarl.agents.in_context.observation_scale import ObservationScale
from metarl.agents.in_context.trial_state import OpenTrial, Trial, Unknown
from metarl.distributions import Categorical, DiagonalGaussian
from metarl.errors import InputError
from metarl.family import TaskFamily
from metarl.learner import Learner
from metarl.rollout import Rollout
from metarl.seeding import derive_seed
from metarl.spaces import features
from metarl.trials import Trials
from metarl.validation import require_counts


@dataclass(frozen=True)
class TrialConfig:
    """Settings of learners that remember a trial."""

    episodes_per_trial: int = 2
    """Episodes of a trial: what the learner spends on one task."""

    def __post_init__(self) -> None:
        require_counts(self, "episodes_per_trial")


class StepInputs:
    """A step's inputs: observation, previous action and reward, and whether an episode begins.

    Previous action and reward are zeros before a trial's first step, and else those of the last step, also where that
    was in the episode before.

    Args:
        observation_space: Box (flattened) or Discrete (one-hot).
        action_space: Box of one axis (clipped to units of [-1, 1]) or Discrete from 0 on (one-hot).

    Attributes:
        observation_size: of the observation's part, which stands first.
        size: of all.
        scale: what observations are passed through, if it is set.

    Raises:
        InputError: for other spaces.
    """

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        if not isinstance(observation_space, spaces.Box | spaces.Discrete):
            raise InputError(f"a memory observes a Box or Discrete space, not {observation_space}")
        flat_box = isinstance(action_space, spaces.Box) and len(action_space.shape) == 1
        if not flat_box and not (isinstance(action_space, spaces.Discrete) and action_space.start == 0):
            space = " ".join(str(action_space).split())
            raise InputError(f"a memory acts in a Box of one axis or a Discrete space from 0 on, not in {space}")
        self._observation_space, self._action_space = observation_space, action_space
        self.observation_size = spaces.flatdim(observation_space)
        self.action_size = spaces.flatdim(action_space)
        self.size = self.observation_size + self.action_size + 2
        self.scale: ObservationScale | None = None

    def observations(self, observations: Tensor) -> Tensor:
        """Return observations ``[..., *observation]`` as ``[..., D]``, scaled."""
        features = self.raw_observations(observations)
        return features if self.scale is None else self.scale(features)

    def raw_observations(self, observations: Tensor) -> Tensor:
        """Return observations ``[..., *observation]`` as ``[..., D]``, as the family gave them."""
        return features(self._observation_space, observations)

    def actions(self, actions: Tensor) -> Tensor:
        """Return actions ``[..., *action]``, as a policy drew them, as ``[..., A]``."""
        if isinstance(self._action_space, spaces.Discrete):
            return nn.functional.one_hot(actions, self.action_size).float()
        return actions.clamp(-1, 1)

    def __call__(self, observations: Tensor, actions: Tensor, rewards: Tensor, starts: Tensor) -> Tensor:
        """Join a step's inputs ``[..., size]``.

        Args:
            observations: ``[..., *observation]``.
            actions: features ``[..., A]`` of the previous actions.
            rewards: the previous rewards ``[...]``, as the family gave them.
            starts: whether an episode begins, ``[...]``.
        """
        flags = starts.unsqueeze(-1).to(rewards.dtype)
        return torch.cat([self.observations(observations), actions, rewards.unsqueeze(-1), flags], -1)


class TrialNetwork(nn.Module, ABC):
    """Actor and critic that read a trial, all at once or step by step, to the same numbers."""

    @abstractmethod
    def initial(self, trials: int) -> Memory:
        """Return what is remembered before a trial's first step."""

    @abstractmethod
    def forward(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[Categorical | DiagonalGaussian, Tensor, Memory]:
        """Read on in B trials; see ``MemoryNetwork``.

        Returns:
            Action distributions with tensors ``[B, L, A]``, values ``[B, L]``, and the memory after each trial's last
            step.
        """


class ActionHead(nn.Module):
    """Action distributions from a layer's outputs: their logits, or the means of Gaussians of one deviation.

    Attributes:
        size: number of outputs it takes.
    """

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        super().__init__()
        self.size = spaces.flatdim(action_space)
        self.discrete = isinstance(action_space, spaces.Discrete)
        self.log_std = nn.Parameter(torch.zeros(0 if self.discrete else self.size))

    def forward(self, outputs: Tensor) -> Categorical | DiagonalGaussian:
        """Return distributions of outputs ``[..., size]``."""
        if self.discrete:
            return Categorical(outputs)
        return DiagonalGaussian(outputs, self.log_std.expand_as(outputs))


def small_layer(inputs: int, outputs: int, gain: float = 0.01) -> nn.Linear:
    """Return a layer whose first outputs are near 0, so that a policy starts near uniform and a critic near 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class TrialLearner(Learner):
    """A learner whose state is its trials so far, and whose adaptation is to remember.

    Episodes of a task side by side belong to different trials, which know nothing of each other.

    Attributes:
        network: acts and values.
        inputs: what it reads of a step.
    """

    pools_episodes: ClassVar[bool] = False
    network: TrialNetwork

    def __init__(self, family: TaskFamily, config: TrialConfig, seed: int, device: torch.device) -> None:
        self.inner_steps = self.evaluation_steps = config.episodes_per_trial - 1
        self.inputs = StepInputs(family.observation_space, family.action_space)
        self._device, self._seed = device, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "network") % 2**63)
            self.network = self.make_network(family).to(device)

    @abstractmethod
    def make_network(self, family: TaskFamily) -> TrialNetwork:
        """Return a new network, on the CPU; its numbers come from torch's global stream."""

    def begin(self, num_tasks: int) -> Unknown:
        """Return that nothing is known."""
        return Unknown(num_tasks)

    def open(
        self, state: Unknown | Trial, episodes: int, generator: torch.Generator, deterministic: bool = False
    ) -> OpenTrial:
        """Start the next episode of ``episodes`` trials of each task.

        Raises:
            InputError: when the state is that of another number of trials.
        """
        return OpenTrial(state, self._next_episode(state, episodes))

    def _next_episode(self, state: Unknown | Trial, trials: int) -> Trial:
        if isinstance(state, Trial):
            if (begun := state.rewards.shape[1]) != trials:
                raise InputError(f"{begun} trials of each task go on in as many episodes, not in {trials}")
            return state.next_episode()
        shape = (state.num_tasks, trials)
        return Trial(
            self.network.initial(state.num_tasks * trials),
            torch.zeros(*shape, self.inputs.action_size, device=self._device),
            torch.zeros(shape, device=self._device),
            torch.ones(shape, device=self._device),
        )

    @torch.no_grad()
    def action_distribution(self, working: OpenTrial, observations: Tensor) -> Categorical | DiagonalGaussian:
        """Read the step into the memory, and return the policy's distribution."""
        trial = working.trial
        inputs = self.inputs(observations, trial.actions, trial.rewards, trial.starts)
        flat, _, memory = self.network(inputs.flatten(0, 1).unsqueeze(1), trial.memory)
        for name, value in memory.items():
            if value is not trial.memory[name]:  # else the network has written it in place
                trial.memory[name].copy_(value)
        distribution: Categorical | DiagonalGaussian = flat.map(lambda value: value.view(*observations.shape[:2], -1))
        return distribution

    def observe(self, working: OpenTrial, actions: Tensor, rewards: Tensor, ended: Tensor) -> None:
        """Keep the actions and rewards for the next step's inputs, and the trials whose episode has ended."""
        working.trial.actions.copy_(self.inputs.actions(actions))
        working.trial.rewards.copy_(rewards)
        working.trial.starts.zero_()
        # To ask whether an episode has ended is free on the CPU; elsewhere it would be to wait for the device.
        if self._device.type != "cpu" or ended.any():
            working.close(ended)

    def close(self, working: OpenTrial, rollout: Rollout) -> Trial:
        """Return the trials after their episodes, as they were remembered while acting."""
        assert working.closed is not None, "every episode of the rollout has ended"
        return working.closed

    @torch.no_grad()
    def adapt(self, state: Unknown | Trial, rollout: Rollout) -> Trial:
        """Read one more episode of every trial.

        Raises:
            InputError: when the state is that of another number of trials.
        """
        trial = self._next_episode(state, rollout.rewards.shape[1])
        trials = Trials.of([rollout])
        inputs = self.trial_inputs(trials, trial.actions.flatten(0, 1), trial.rewards.flatten(0, 1))
        *_, memory = self.network(inputs, trial.memory, trials.lengths)
        last = torch.arange(len(inputs), device=inputs.device), trials.lengths - 1
        return Trial(
            memory,
            self.inputs.actions(trials.actions)[last].view_as(trial.actions),
            trials.rewards[last].view_as(trial.rewards),
            trial.starts,
        )

    def trial_inputs(self, trials: Trials, actions: Tensor | None = None, rewards: Tensor | None = None) -> Tensor:
        """Return the inputs ``[B, L, size]`` of whole trials, or of what follows on the last actions and rewards.

        Args:
            trials: B of them.
            actions: features ``[B, A]`` of the actions before; by default there are none.
            rewards: ``[B]``, those before.
        """
        taken = self.inputs.actions(trials.actions)
        first = torch.zeros_like(taken[:, 0]) if actions is None else actions
        reward = torch.zeros_like(trials.rewards[:, 0]) if rewards is None else rewards
        return self.inputs(
            trials.observations,
            torch.cat([first.unsqueeze(1), taken[:, :-1]], 1),
            torch.cat([reward.unsqueeze(1), trials.rewards[:, :-1]], 1),
            trials.starts,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the network's parameters by name."""
        return {"network": {name: value.cpu().clone() for name, value in self.network.state_dict().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over parameters.

        Raises:
            InputError: when their names or shapes are not the network's.
        """
        own = {name: value.shape for name, value in self.network.state_dict().items()}
        given = {name: value.shape for name, value in state["network"].items()}
        if others := sorted(dict(own.items() ^ given.items())):
            raise InputError(
                f"the checkpoint is of another network: {others[0]} is not the same in both; the code of its memory "
                "has changed since, so train it again"
            )
        self.network.load_state_dict(state["network"])
