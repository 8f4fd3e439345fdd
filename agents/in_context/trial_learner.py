"""The base class of learners with a memory: inputs, acting through a trial, and reading a recorded one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metarl.agents.in_context.memories.memory import Memory
from metarl.agents.in_context.step_inputs import ActionDistribution, StepInputs
from metarl.agents.in_context.trial_state import OpenTrial, Trial, Unknown
from metarl.devices.transfer import reading_is_free
from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.learning.learner import Learner
from metarl.rollouts.rollout import Rollout
from metarl.rollouts.trials import Trials
from metarl.seeding import global_stream
from metarl.validation import require_counts, require_unit

# Description of the metric ``adaptation_kl``.
ADAPTATION_KL = (
    "mean KL divergence of the policy that remembers the trial from the same policy without the episodes before, in "
    "nats, at the steps of the trial's last episode: how far adaptation moves the policy"
)


@dataclass(frozen=True)
class TrialConfig:
    """Settings of in-context learners."""

    episodes_per_trial: int = 2
    """Episodes per trial: the learner's budget on one task."""
    encoder: str = "auto"
    """Observation encoder: flat, one-hot, conv or spatial-softmax (images), module:Class (your own torch.nn.Module), or
    auto: conv for images, flat otherwise."""

    def __post_init__(self) -> None:
        require_counts(self, "episodes_per_trial")


@dataclass(frozen=True)
class DiscountedTrialConfig(TrialConfig):
    """Settings of in-context learners that maximise the return of a trial."""

    discount: float = 0.99
    """Discount of rewards, per step of the trial."""
    episode_discount: float = 1.0
    """Further discount of rewards, per end of an episode inside the trial; 0 makes each episode count for itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_unit(self, "discount", "episode_discount")
        if self.episode_discount != 1 and self.episodes_per_trial == 1:
            raise InputError(
                "episode_discount applies between the episodes of a trial: it needs --episodes-per-trial 2 or more"
            )


class TrialPolicy(nn.Module, ABC):
    """A policy that reads a trial at once or step by step, with the same results."""

    @abstractmethod
    def initial(self, trials: int) -> Memory:
        """Return the initial memory of a trial."""

    @abstractmethod
    def policy_and_memory(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Memory]:
        """Read the next steps of B trials; see ``MemoryNetwork``.

        Returns:
            Action distributions with tensors ``[B, L, A]``, and the memory after each trial's last step.
        """


class TrialNetwork(TrialPolicy):
    """Actor and critic on one memory."""

    def policy_and_memory(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Memory]:
        """Read the next steps of B trials."""
        distribution, _, memory = self(inputs, memory, lengths)
        return distribution, memory

    @abstractmethod
    def forward(
        self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None
    ) -> tuple[ActionDistribution, Tensor, Memory]:
        """Read the next steps of B trials; see ``MemoryNetwork``.

        Returns:
            Action distributions with tensors ``[B, L, A]``, values ``[B, L]``, and the memory after each trial's last
            step.
        """

    def known(self, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Return the input of ``read`` for whole trials ``[B, L, K]``: their inputs, after the network's fixed parts.

        Fixed parts get no gradient from policy and critic, so they need not be computed again for each gradient step.
        """
        return inputs

    def read(self, known: Tensor, lengths: Tensor) -> tuple[ActionDistribution, Tensor]:
        """Return action distributions and values at every step of whole trials, as ``forward`` does."""
        distribution, values, _ = self(known, self.initial(len(known)), lengths)
        return distribution, values


class TrialLearner(Learner):
    """A learner whose state is its memory of the trials so far, and which adapts by remembering.

    Parallel episodes of a task belong to independent trials.

    Attributes:
        network: the policy, and all else that is trained with it.
        inputs: the inputs of a step.
    """

    pools_episodes: ClassVar[bool] = False
    capturable: ClassVar[bool] = True
    network: TrialPolicy

    def __init__(self, family: TaskFamily, config: TrialConfig, seed: int, device: torch.device) -> None:
        self.inner_steps = self.evaluation_steps = config.episodes_per_trial - 1
        self._device, self._seed = device, seed
        with global_stream(seed, "network"):
            self.inputs = StepInputs(family.observation_space, family.action_space, config.encoder)
            network = self.make_network(family)
        if self.inputs.encoder.learned:  # then it is trained and saved with the network that reads it
            network.add_module("observation_encoder", self.inputs.encoder)
        self.network = network.to(device)

    @abstractmethod
    def make_network(self, family: TaskFamily) -> TrialPolicy:
        """Return a new network on the CPU, initialised from torch's global generator."""

    def begin(self, num_tasks: int) -> Unknown:
        """Return the state without any experience."""
        return Unknown(num_tasks)

    def open(
        self, state: Unknown | Trial, episodes: int, generator: torch.Generator, deterministic: bool = False
    ) -> OpenTrial:
        """Start the next episode of ``episodes`` trials of each task.

        Raises:
            InputError: if the state has another number of trials.
        """
        trial = self._next_episode(state, episodes)
        # Memory for the state at an episode's end, at an address that a graph of a step can use.
        return OpenTrial(state, trial, None if reading_is_free(self._device) else trial.next_episode())

    def _next_episode(self, state: Unknown | Trial, trials: int) -> Trial:
        if isinstance(state, Trial):
            if (begun := state.rewards.shape[1]) != trials:
                raise InputError(f"{begun} trials of each task need {begun} episodes, not {trials}")
            return state.next_episode()
        shape = (state.num_tasks, trials)
        return Trial(
            self.network.initial(state.num_tasks * trials),
            torch.zeros(*shape, self.inputs.action_size, device=self._device),
            torch.zeros(shape, device=self._device),
            torch.ones(shape, device=self._device),
        )

    @torch.no_grad()
    def action_distribution(self, working: OpenTrial, observations: Tensor) -> ActionDistribution:
        """Read the step into the memory, and return the policy's distribution."""
        trial = working.trial
        inputs = self.inputs(observations, trial.actions, trial.rewards, trial.starts)
        flat, memory = self.network.policy_and_memory(inputs.flatten(0, 1).unsqueeze(1), trial.memory)
        for name, value in memory.items():
            if value is not trial.memory[name]:  # otherwise the network has updated it in place
                trial.memory[name].copy_(value)
        by_task: ActionDistribution = flat.map(lambda value: value.view(*observations.shape[:2], *value.shape[2:]))
        return by_task

    def observe(self, working: OpenTrial, actions: Tensor, rewards: Tensor, ended: Tensor) -> None:
        """Keep the actions and rewards for the next step's inputs, and the trials whose episode has ended."""
        self.remember(working, actions, rewards)
        if not reading_is_free(self._device) or ended.any():
            working.close(ended)

    def remember(self, working: OpenTrial, actions: Tensor, rewards: Tensor) -> None:
        """Keep the actions and rewards for the next step's inputs."""
        working.trial.actions.copy_(self.inputs.actions(actions))
        working.trial.rewards.copy_(rewards)
        working.trial.starts.zero_()

    def close(self, working: OpenTrial, rollout: Rollout) -> Trial:
        """Return the trials after their episodes, with the memory updated while acting."""
        assert working.closed is not None, "every episode of the rollout has ended"
        return working.closed

    @torch.no_grad()
    def adapt(self, state: Unknown | Trial, rollout: Rollout) -> Trial:
        """Read one more episode of every trial.

        Raises:
            InputError: if the state has another number of trials.
        """
        trial = self._next_episode(state, rollout.rewards.shape[1])
        trials = Trials.of_episode(rollout)
        inputs = self.trial_inputs(trials, trial.actions.flatten(0, 1), trial.rewards.flatten(0, 1))
        _, memory = self.network.policy_and_memory(inputs, trial.memory, trials.lengths)
        last = torch.arange(len(inputs), device=inputs.device), trials.lengths - 1
        return Trial(
            memory,
            self.inputs.actions(trials.actions)[last].view_as(trial.actions),
            trials.rewards[last].view_as(trial.rewards),
            trial.starts,
        )

    @torch.no_grad()
    def adaptation_kl(self, rollouts: Sequence[Rollout]) -> Tensor:
        """Return how far ``[]`` the episodes before the last one of each trial have moved the policy, in nats.

        Args:
            rollouts: of the trials' episodes, in order.
        """
        *earlier, last = rollouts
        known: Unknown | Trial = self.begin(last.num_tasks)
        for rollout in earlier:
            known = self.adapt(known, rollout)
        episode = Trials.of_episode(last)
        after: Any = self._policy(known, episode, last.rewards.shape[1])
        before = self._policy(self.begin(last.num_tasks), episode, last.rewards.shape[1])
        kl = after.kl(before) * episode.valid
        return self.processes.mean(kl.sum()) / self.processes.mean(episode.valid.sum())

    def _policy(self, known: Unknown | Trial, episode: Trials, trials: int) -> ActionDistribution:
        """Return the policy at each step of the next episode of trials, given what is known of them."""
        trial = self._next_episode(known, trials)
        inputs = self.trial_inputs(episode, trial.actions.flatten(0, 1), trial.rewards.flatten(0, 1))
        return self.network.policy_and_memory(inputs, trial.memory, episode.lengths)[0]

    def trial_inputs(self, trials: Trials, actions: Tensor | None = None, rewards: Tensor | None = None) -> Tensor:
        """Return the inputs ``[B, L, size]`` of whole trials, or of steps that follow given actions and rewards.

        Args:
            trials: B trials.
            actions: features ``[B, A]`` of the previous actions; none by default.
            rewards: previous rewards ``[B]``.
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
        """Restore parameters.

        Raises:
            InputError: if names or shapes do not match the network's.
        """
        own = {name: value.shape for name, value in self.network.state_dict().items()}
        given = {name: value.shape for name, value in state["network"].items()}
        if others := sorted(dict(own.items() ^ given.items())):
            raise InputError(
                f"the checkpoint belongs to another network: {others[0]} differs; the code of its memory "
                "has changed since, so train it again"
            )
        self.network.load_state_dict(state["network"])
