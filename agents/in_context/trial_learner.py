"""What learners share that adapt by remembering: their inputs, acting through a trial, and reading a recorded one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory
from metarl.agents.in_context.step_inputs import ActionDistribution, StepInputs
from metarl.distributions import Distribution
from metarl.errors import InputError
from metarl.family import TaskFamily
from metarl.learner import Learner
from metarl.rollout import Rollout
from metarl.seeding import derive_seed
from metarl.trials import Trials
from metarl.validation import require_counts


@dataclass(frozen=True)
class TrialConfig:
    """Settings of learners that remember a trial."""

    episodes_per_trial: int = 2
    """Episodes of a trial: what the learner spends on one task."""
    encoder: str = "auto"
    """What reads observations: flat, one-hot, conv (images), module:Class (your own torch.nn.Module), or auto: conv for
    images, flat for all others."""

    def __post_init__(self) -> None:
        require_counts(self, "episodes_per_trial")


@dataclass
class Trial:
    """Where R trials of each of N tasks stand.

    Shapes:
        memory: of N * R trials.
        actions: features of the last actions ``[N, R, A]``.
        rewards: the last ones ``[N, R]``.
        starts: whether the next step begins an episode ``[N, R]``.
    """

    memory: Memory
    actions: Tensor
    rewards: Tensor
    starts: Tensor


class Working(Trial):
    """A trial that acting and observing move on, in place."""


@dataclass(frozen=True)
class Unknown:
    """N tasks of which nothing is known."""

    num_tasks: int


class TrialNetwork(nn.Module, ABC):
    """Actor and critic that read a trial, all at once or step by step, to the same numbers."""

    @abstractmethod
    def initial(self, trials: int) -> Memory:
        """Return what is remembered before a trial's first step."""

    @abstractmethod
    def forward(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Tensor, Memory]:
        """Read on in B trials; see ``MemoryNetwork``.

        Returns:
            Action distributions with tensors ``[B, L, A]``, values ``[B, L]``, and the memory after each trial's last
            step.
        """


def small_layer(inputs: int, outputs: int, gain: float = 0.01) -> nn.Linear:
    """Return a layer whose first outputs are near 0, so that a policy starts near uniform and a critic near 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class TrialLearner(Learner):
    """A learner whose state is where its trials stand, and whose adaptation is to remember.

    Episodes of a task side by side belong to different trials, which know nothing of each other.

    Attributes:
        network: acts and values.
        inputs: what it reads of a step.
    """

    pools_episodes: ClassVar[bool] = False
    network: TrialNetwork

    def __init__(self, family: TaskFamily, config: TrialConfig, seed: int, device: torch.device) -> None:
        self.inner_steps = self.evaluation_steps = config.episodes_per_trial - 1
        self._device, self._seed = device, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "network") % 2**63)
            self.inputs = StepInputs(family.observation_space, family.action_space, config.encoder)
            network = self.make_network(family)
        if self.inputs.encoder.learned:  # then it is trained and stored with the network that reads it
            network.add_module("observation_encoder", self.inputs.encoder)
        self.network = network.to(device)

    @abstractmethod
    def make_network(self, family: TaskFamily) -> TrialNetwork:
        """Return a new network, on the CPU; its numbers come from torch's global stream."""

    def begin(self, num_tasks: int) -> Unknown:
        """Return that nothing is known."""
        return Unknown(num_tasks)

    def open(
        self, state: Unknown | Trial, episodes: int, generator: torch.Generator, deterministic: bool = False
    ) -> Working:
        """Return a working copy for the next episode of ``episodes`` trials of each task.

        Raises:
            InputError: when the state is that of another number of trials.
        """
        if isinstance(state, Unknown):
            shape = (state.num_tasks, episodes)
            return Working(
                self.network.initial(state.num_tasks * episodes),
                torch.zeros(*shape, self.inputs.action_size, device=self._device),
                torch.zeros(shape, device=self._device),
                torch.ones(shape, device=self._device),
            )
        if (trials := state.rewards.shape[1]) != episodes:
            raise InputError(f"{trials} trials of each task go on in as many episodes, not in {episodes}")
        memory = {name: value.clone() for name, value in state.memory.items()}
        return Working(memory, state.actions.clone(), state.rewards.clone(), torch.ones_like(state.starts))

    @torch.no_grad()
    def act(
        self, state: Unknown | Trial, observations: Tensor, generator: torch.Generator, deterministic: bool = False
    ) -> tuple[Tensor, Distribution]:
        """Read the step and act; a working copy remembers it."""
        if not isinstance(state, Working):
            state = self.open(state, observations.shape[1], generator, deterministic)
        inputs = self.inputs(observations, state.actions, state.rewards, state.starts)
        flat, _, memory = self.network(inputs.flatten(0, 1).unsqueeze(1), state.memory)
        for name, value in memory.items():
            if value is not state.memory[name]:  # else the network has written it in place
                state.memory[name].copy_(value)
        distribution = flat.map(lambda tensor: tensor.view(*observations.shape[:2], *tensor.shape[2:]))
        return distribution.mode() if deterministic else distribution.sample(generator), distribution

    def observe(self, working: Working, actions: Tensor, rewards: Tensor) -> None:
        """Take note of the last actions and rewards."""
        working.actions.copy_(self.inputs.actions(actions))
        working.rewards.copy_(rewards)
        working.starts.zero_()

    @torch.no_grad()
    def adapt(self, state: Unknown | Trial, rollout: Rollout) -> Trial:
        """Read one more episode of every trial."""
        trial = self.open(state, rollout.rewards.shape[1], torch.Generator(self._device))
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
        """Take over parameters; their names and shapes must be the network's."""
        self.network.load_state_dict(state["network"])
