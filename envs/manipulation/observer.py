"""Observations, and the inputs of rewards, of worlds of several environments; tensors are overwritten in place."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.envs.manipulation.arms import Arms, Source
from metarl.envs.manipulation.scene import EnvironmentSpec, Reader, RotationMatrix, Scene, quaternions
from metarl.envs.manipulation.terms import norm

# Distance between the claws of the open gripper, in m.
MAX_OPENING = 0.1
BODIES = ("hand", "rightclaw", "leftclaw", "leftpad", "rightpad")
FINGERS = ("rightEndEffector", "leftEndEffector")
# An observation is a frame of this many numbers (hand, gripper, objects), the previous frame, and the goal.
FRAME_SIZE = 18


@dataclass(frozen=True)
class WorldGroup:
    """The worlds of one environment, the rows ``span`` of all tensors."""

    spec: EnvironmentSpec
    arms: Arms
    span: slice


class Observer:
    """Observations of B worlds; ``update`` overwrites them.

    Attributes:
        unclipped: observations before they are clipped to their bounds ``[B, 39]``.
        observation: ``[B, 39]``.
        effort: efforts of the grippers ``[B]``, in [-1, 1].

    Args:
        groups: the worlds, one group after another.
        bounds: lower and upper bounds of the observation ``[B, 2, 39]``.
    """

    def __init__(self, groups: Sequence[WorldGroup], bounds: Tensor) -> None:
        like, count = groups[0].arms.rows["qpos"], len(bounds)
        size = 2 * FRAME_SIZE + 3
        self._low, self._high = bounds.to(like).unbind(1)
        self.unclipped, self.observation = like.new_zeros(count, size), like.new_zeros(count, size)
        self._frame, self._previous = self.unclipped[:, :FRAME_SIZE], self.unclipped[:, FRAME_SIZE : 2 * FRAME_SIZE]
        self._bodies, self._fingers = (like.new_zeros(count, len(names), 3) for names in (BODIES, FINGERS))
        self._tcp = like.new_zeros(count, 3)
        self._tcp_to_object, self.effort, self._closing = like.new_zeros(3, count)
        self._copies = [copy for group in groups for copy in self._copies_of(group)]
        readings = [reading for group in groups for reading in self._readings_of(group)]
        self._read = [(arms, reader, into) for arms, reader, into in readings if not isinstance(reader, RotationMatrix)]
        rotations = [(reader.read(arms), into) for arms, reader, into in readings if isinstance(reader, RotationMatrix)]
        counts = [len(into) for _, into in rotations]
        self._matrices = like.new_zeros(sum(counts), *(rotations[0][0].shape[1:] if rotations else (9,)))
        self._rotations = [
            (matrices, gathered, into)
            for (matrices, into), gathered in zip(rotations, torch.split(self._matrices, counts), strict=True)
        ]

    def _copies_of(self, group: WorldGroup) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return source, indices and destination of the positions of ``BODIES`` and ``FINGERS``."""
        positions: tuple[tuple[str, Source, tuple[str, ...], Tensor], ...] = (
            ("xpos", "body", BODIES, self._bodies),
            ("site_xpos", "site", FINGERS, self._fingers),
        )
        return [
            (
                group.arms.read(field),
                torch.tensor([group.arms.index_of(source, name) for name in names], device=target.device),
                target[group.span],
            )
            for field, source, names, target in positions
        ]

    def _readings_of(self, group: WorldGroup) -> list[tuple[Arms, Reader | RotationMatrix, Tensor]]:
        """Return what is read for each object, and the part of the frame that it is written to."""
        frame, spec, arms = self._frame[group.span], group.spec, group.arms
        positions = [(arms, reader, frame[:, 4 + 7 * index :][:, :3]) for index, reader in enumerate(spec.positions)]
        rotations = [(arms, reader, frame[:, 7 + 7 * index :][:, :4]) for index, reader in enumerate(spec.rotations)]
        return [*positions, *rotations]

    def scene(self, group: WorldGroup, attributes: dict[str, Tensor], cache: dict[object, Tensor]) -> Scene:
        """Return the input of the reward of a group."""
        span = group.span
        return Scene(
            arms=group.arms,
            attributes=attributes,
            observation=self.observation[span, :FRAME_SIZE],
            tcp=self._tcp[span],
            pads=self._bodies[span, 3:5],
            tcp_to_object=self._tcp_to_object[span],
            effort=self.effort[span],
            closing=self._closing[span],
            cache=cache,
        )

    def set_initial(self, span: slice, rows: Tensor, observations: Tensor) -> None:
        """Set the initial observations ``[K, 39]`` of the rows ``[K]`` of a group."""
        self.observation[span][rows] = self.unclipped[span][rows] = observations.to(self.observation)

    def update(self) -> None:
        """Read positions, assemble the observation, and compute the terms that many rewards share."""
        self._previous.copy_(self._frame)
        for positions, indices, target in self._copies:
            torch.index_select(positions, 1, indices, out=target)
        for arms, reader, into in self._read:
            into.copy_(reader(arms))
        self._update_quaternions()
        self._frame[:, :3] = self._bodies[:, 0]
        opening = norm(self._bodies[:, 1] - self._bodies[:, 2])
        self._frame[:, 3] = opening.div_(MAX_OPENING).clamp_(0, 1)
        torch.clamp(self.unclipped, self._low, self._high, out=self.observation)
        torch.add(self._fingers[:, 0], self._fingers[:, 1], out=self._tcp).div_(2)
        torch.linalg.vector_norm(self.observation[:, 4:7] - self._tcp, dim=-1, out=self._tcp_to_object)
        torch.clamp(self.effort, min=0, out=self._closing)

    def _update_quaternions(self) -> None:
        if not self._rotations:
            return
        for matrices, gathered, _ in self._rotations:
            gathered.copy_(matrices)
        computed = torch.split(quaternions(self._matrices), [len(into) for _, _, into in self._rotations])
        for (_, _, into), values in zip(self._rotations, computed, strict=True):
            into.copy_(values)
