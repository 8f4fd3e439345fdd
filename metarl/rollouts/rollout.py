"""Complete episodes of many tasks, sampled or recorded: tensors shaped tasks x episodes x steps."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.devices.processes import Processes
from metarl.errors import InputError
from metarl.numerics.distributions import Distribution
from metarl.numerics.params import names

UNKNOWN_POLICY = (
    "do not contain the probabilities of their actions, which this learner's update needs; use an off-policy "
    "learner, such as pearl"
)


@dataclass(frozen=True)
class Episode:
    """One recorded episode of T steps, as NumPy arrays.

    Shapes:
        observations: ``[T + 1, *observation]``, including the one after the last step.
        actions: ``[T, *action]``, in the policy's units ([-1, 1] for a bounded Box).
        rewards: ``[T]``.
        terminated: whether the last step terminated the episode; otherwise it was truncated.
        success: bool ``[T]``, whether the step was a success; None if unknown.

    Raises:
        InputError: if the arrays have inconsistent lengths, or there is no step.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    success: np.ndarray | None = None

    def __post_init__(self) -> None:
        steps = len(self.rewards)
        lengths = {len(self.observations) - 1, len(self.actions), steps}
        if self.success is not None:
            lengths.add(len(self.success))
        if steps < 1 or lengths != {steps}:
            raise InputError(
                f"an episode of T >= 1 steps has T + 1 observations, T actions and T rewards, not "
                f"{len(self.observations)}, {len(self.actions)} and {steps}"
            )


@dataclass(frozen=True)
class Rollout:
    """Complete episodes of N tasks, E episodes each, at most T steps long; T is at most the horizon.

    Row ``[n, e]`` is one episode from its first step on. ``valid`` is true up to and including the step that ended
    the episode; all later entries are zeros.

    Shapes:
        tasks: TensorDict ``[N]``, parameters of each task; without entries if they are unknown.
        observations: ``[N, E, T, *observation]``, before the action.
        actions: ``[N, E, T, *action]``, as sampled from the policy (before clipping and scaling to the action space).
        rewards: ``[N, E, T]``.
        terminated, truncated, valid: bool ``[N, E, T]``.
        final_observations: ``[N, E, *observation]``, after the episode's last step.
        log_probs: ``[N, E, T]``, of the actions at sampling time; None if the policy is unknown.
        distribution: action distributions of the policy that acted, with tensors ``[N, E, T, A]``; None if unknown.
        success: bool ``[N, E, T]``, whether the step was a success; None if unknown.
        best_actions: ``[N, E, T, *action]``, the best actions (``metarl.families.solved``); None if unknown.
    """

    tasks: TensorDict
    observations: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    final_observations: Tensor
    log_probs: Tensor | None = None
    distribution: Distribution | None = None
    success: Tensor | None = None
    best_actions: Tensor | None = None

    @classmethod
    def from_episodes(cls, episodes: Sequence[Sequence[Episode]], tasks: TensorDict | None = None) -> "Rollout":
        """Join recorded episodes into a rollout, on the CPU.

        Args:
            episodes: E episodes of each of N tasks, ``episodes[n][e]``; they may differ in length.
            tasks: parameters of the tasks ``[N]``, if known.

        Returns:
            ``Rollout`` of T steps, those of the longest episode, with zeros after the end of each shorter one. The
            policy is unknown: ``log_probs`` and ``distribution`` are None. ``success`` is None unless all episodes have
            it.

        Raises:
            InputError: if there is no episode, tasks have different numbers of them, or shapes are inconsistent.
        """
        counts = {len(each) for each in episodes}
        if len(counts) != 1 or counts == {0}:
            raise InputError(f"every task needs the same number of episodes, at least 1, not {sorted(counts)}")
        flat = [episode for each in episodes for episode in each]
        shape = (len(episodes), counts.pop())
        lengths = torch.tensor([len(episode.rewards) for episode in flat]).view(shape)
        steps = torch.arange(int(lengths.max()))
        valid, last = steps < lengths.unsqueeze(-1), steps == lengths.unsqueeze(-1) - 1
        ends = torch.tensor([bool(episode.terminated) for episode in flat]).view(*shape, 1)
        success = None
        if all(episode.success is not None for episode in flat):
            success = _padded([np.asarray(episode.success, dtype=bool) for episode in flat], shape)
        return cls(
            tasks=TensorDict({}, [shape[0]]) if tasks is None else tasks,
            observations=_padded([episode.observations[:-1] for episode in flat], shape),
            actions=_padded([episode.actions for episode in flat], shape),
            rewards=_padded([np.asarray(episode.rewards, dtype=np.float32) for episode in flat], shape),
            terminated=last & ends,
            truncated=last & ~ends,
            valid=valid,
            final_observations=_padded([episode.observations[-1:] for episode in flat], shape).squeeze(2),
            success=success,
        )

    def episodes(self) -> Iterator[list[Episode]]:
        """Yield the episodes of each task; the inverse of ``from_episodes``."""
        for task in range(self.num_tasks):
            yield [self._episode(task, number) for number in range(self.rewards.shape[1])]

    def _episode(self, task: int, number: int) -> Episode:
        steps = int(self.valid[task, number].sum())

        def inside(values: Tensor) -> np.ndarray:
            cut: np.ndarray = values[task, number, :steps].cpu().numpy()
            return cut

        last = self.final_observations[task, number].cpu().numpy()
        return Episode(
            observations=np.concatenate([inside(self.observations), last[None]]),
            actions=inside(self.actions),
            rewards=inside(self.rewards),
            terminated=bool(self.terminated[task, number, steps - 1]),
            success=None if self.success is None else inside(self.success),
        )

    def known_log_probs(self) -> Tensor:
        """Return ``log_probs``.

        Raises:
            InputError: where they are not known.
        """
        if self.log_probs is None:
            raise InputError(f"recorded episodes {UNKNOWN_POLICY}")
        return self.log_probs

    def known_distribution(self) -> Distribution:
        """Return ``distribution``.

        Raises:
            InputError: where it is not known.
        """
        if self.distribution is None:
            raise InputError(f"recorded episodes {UNKNOWN_POLICY}")
        return self.distribution

    @property
    def num_tasks(self) -> int:
        """Number of tasks N."""
        return self.rewards.shape[0]

    @property
    def env_steps(self) -> int:
        """Number of environment steps inside episodes."""
        return int(self.valid.sum())

    def episode_returns(self) -> Tensor:
        """Return the undiscounted sum of rewards of each episode, ``[N, E]``."""
        return (self.rewards * self.valid).sum(-1)

    def episode_success(self) -> Tensor | None:
        """Return whether each episode had a successful step, bool ``[N, E]``, or None if unknown."""
        return None if self.success is None else (self.success & self.valid).any(-1)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Rollout":
        """Apply ``function`` to every tensor."""
        return Rollout(
            tasks=TensorDict({name: function(self.tasks[name]) for name in names(self.tasks)}, self.tasks.batch_size),
            **self._map_episodes(function),
        )

    def to(self, device: torch.device | str) -> "Rollout":
        """Copy every tensor to ``device``."""
        return self.map(lambda value: value.to(device))

    def first_episodes(self, fraction: float) -> "Rollout":
        """Return the first ``fraction`` of each task's episodes, at least one.

        Episodes of one task are independent and identically distributed, so the first ones are a fair sample.
        """
        count = max(1, round(fraction * self.rewards.shape[1]))
        return Rollout(tasks=self.tasks, **self._map_episodes(lambda value: value[:, :count].contiguous()))

    def _map_episodes(self, function: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Apply ``function`` to every tensor except the tasks'."""
        values = {name: value for name, value in vars(self).items() if name != "tasks" and value is not None}
        return {
            name: value.map(function) if isinstance(value, Distribution) else function(value)
            for name, value in values.items()
        }


def known_successes(found: Sequence[Tensor | None], like: Tensor, processes: Processes) -> list[Tensor]:
    """Return the ``episode_success`` of several rollouts, bool ``[N, E]``, or nothing if none is known anywhere.

    An environment may report success in some steps only, for example when it succeeds. In a rollout without any report
    no episode succeeded, if there was one in another rollout or on another process.

    Args:
        found: of each rollout; None where it is unknown.
        like: ``[N, E]`` on the rollouts' device.
        processes: the processes whose tasks form the batch.
    """
    if not any(processes.gather(any(each is not None for each in found))):
        return []
    return [torch.zeros_like(like, dtype=torch.bool) if each is None else each for each in found]


def _padded(arrays: Sequence[np.ndarray], shape: tuple[int, int]) -> Tensor:
    """Return arrays ``[T_b, ...]`` of N * E episodes as one tensor ``[N, E, T, ...]``, zeros after their ends."""
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) != 1:
        raise InputError(f"observations and actions must have the same shapes in all episodes, not {sorted(shapes)}")
    longest = max(len(array) for array in arrays)
    padded = np.zeros((len(arrays), longest, *shapes.pop()), dtype=arrays[0].dtype)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(padded).view(*shape, *padded.shape[1:])


def join_steps(values: Sequence[Tensor], steps: int, axis: int) -> Tensor:
    """Join tensors ``[N, M, T, ...]`` along tasks (axis 0) or episodes (axis 1), with zeros up to ``steps`` steps."""
    filled = []
    for value in values:
        missing = value.new_zeros(*value.shape[:2], steps - value.shape[2], *value.shape[3:])
        filled.append(torch.cat([value, missing], 2))
    return torch.cat(filled, axis)
