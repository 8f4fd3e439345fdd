"""The learner that is served: how it acts, when it adapts, and what its steps look like in the database."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.families.family import TaskFamily
from metarl.families.spaces import is_bounded_box
from metarl.learning.learner import Learner
from metarl.numerics.distributions import Distribution
from metarl.run.config import TrainConfig
from metarl.sampling.joint_acting import WIDTH, rows_agree


@dataclass(frozen=True)
class Form:
    """Shape and type of a tensor, apart from its axes of tasks, episodes and steps."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor, axes: int) -> "Form":
        """Return the form of a tensor with this many axes before its own."""
        return cls(tuple(tensor.shape[axes:]), tensor.dtype)

    def read(self, rows: Sequence[bytes], episodes: int) -> Tensor:
        """Return T rows of bytes, each ``[E, ...]``, as ``[1, E, T, ...]``."""
        whole = torch.frombuffer(bytearray(b"".join(rows)), dtype=self.dtype)
        return whole.view(len(rows), episodes, *self.shape).movedim(0, 1).unsqueeze(0).contiguous()

    def size(self, episodes: int) -> int:
        """Return the number of bytes of ``[E, ...]``."""
        return episodes * int(np.prod(self.shape)) * self.dtype.itemsize


@dataclass(frozen=True)
class Served:
    """A trained learner with its family.

    Attributes:
        config: of its run.
        learner: that adapts and acts.
        family: whose spaces it acts in, as the learner sees it.
        run: id of the run.
        checkpoint: SHA-256 of its checkpoint.
        iteration: number of iterations it was trained for.
    """

    config: TrainConfig
    learner: Learner
    family: TaskFamily
    run: str
    checkpoint: str
    iteration: int

    @cached_property
    def device(self) -> torch.device:
        """Where the learner is."""
        return torch.device(self.config.run.device)

    @cached_property
    def observation_space(self) -> spaces.Space[Any]:
        """The family's, which makes it anew each time it is asked."""
        return self.family.observation_space

    @cached_property
    def action_space(self) -> spaces.Space[Any]:
        """The family's."""
        return self.family.action_space

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The least and the largest action; None if there are none."""
        space = self.action_space
        return (space.low, space.high) if isinstance(space, spaces.Box) and is_bounded_box(space) else None

    def tensor(self, values: np.ndarray) -> Tensor:
        """Return values of a task's episodes ``[E, ...]`` as ``[1, E, ...]`` on the device."""
        return torch.from_numpy(values[None]).to(self.device)

    @property
    def adapt_after(self) -> int:
        """Complete episodes of a task between adaptations, as in training."""
        return self.config.run.episodes_per_task if self.learner.pools_episodes else 1

    @property
    def takes_recorded(self) -> bool:
        """Whether it adapts to episodes whose actions were drawn with unknown probabilities."""
        return not self.learner.pools_episodes or self.learner.learns_from_recorded

    @cached_property
    def observation(self) -> Form:
        """An observation; floating-point ones are float32, as in a ``Session``."""
        example = torch.as_tensor(
            np.zeros(self.family.observation_space.shape or (), self.family.observation_space.dtype)
        )
        return Form.of(example.float() if example.is_floating_point() else example, 0)

    @cached_property
    def action(self) -> Form:
        """An action in the policy's units."""
        return Form.of(self._example.mode(), 2)

    @cached_property
    def distribution(self) -> tuple[type[Distribution], list[Form]]:
        """The class of the action distributions, and their tensors."""
        return type(self._example), [Form.of(tensor, 2) for tensor in self._example.tensors()]

    @cached_property
    def width(self) -> int:
        """Rows of a forward pass: one task after another where a row's place in a pass would change its bits."""
        examples = torch.stack([self._sample() for _ in range(WIDTH)])
        return WIDTH if rows_agree(self.learner, examples) else 1

    @cached_property
    def pass_seconds(self) -> float:
        """Seconds of a forward pass: the shortest of three."""
        working = self.learner.open(self.learner.begin(self.width), 1, torch.Generator(self.device))
        seen = torch.stack([self._sample() for _ in range(self.width)])[:, None]
        times = []
        for _ in range(3):
            began = time.perf_counter()
            with torch.no_grad():
                self.learner.action_distribution(working, seen)
            times.append(time.perf_counter() - began)
        return min(times)

    @cached_property
    def _example(self) -> Distribution:
        working = self.learner.open(self.learner.begin(1), 1, torch.Generator(self.device))
        with torch.no_grad():
            return self.learner.action_distribution(working, self._sample()[None, None])

    def _sample(self) -> Tensor:
        space = self.observation_space
        sample = torch.as_tensor(np.asarray(space.sample()))
        if isinstance(space, spaces.Box) and sample.is_floating_point():
            sample = torch.randn(self.observation.shape)
        return sample.to(self.device, self.observation.dtype)


def to_bytes(tensor: Tensor) -> bytes:
    """Return the numbers of a tensor one after the other."""
    return tensor.numpy(force=True).tobytes()
