"""What the observation and the rewards see of worlds of several environments, in tensors that stay."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.envs.manipulation.arms import Arms, Source
from metarl.envs.manipulation.scene import Kind, Look, Scene, Turned, quaternions
from metarl.envs.manipulation.terms import norm

# The claws are at most about this far apart, in m.
WIDEST = 0.1
BODIES = ("hand", "rightclaw", "leftclaw", "leftpad", "rightpad")
FINGERS = ("rightEndEffector", "leftEndEffector")
# Hand, gripper and objects fill this many numbers of an observation, those of the step before as many, then the goal.
SEEN = 18


@dataclass(frozen=True)
class Part:
    """The worlds of one environment: the rows ``where`` of all tensors."""

    kind: Kind
    arms: Arms
    where: slice


class Sight:
    """What is seen of B worlds; ``look`` writes it anew.

    Attributes:
        unclipped: an observation before it is brought within its bounds ``[B, 39]``.
        observation: ``[B, 39]``.
        effort: of the grippers ``[B]``, in [-1, 1].

    Args:
        parts: the worlds, one part after another.
        bounds: of the observation, low and high ``[B, 2, 39]``.
    """

    def __init__(self, parts: Sequence[Part], bounds: Tensor) -> None:
        like, count = parts[0].arms.rows["qpos"], len(bounds)
        self._low, self._high = bounds.to(like).unbind(1)
        self.unclipped, self.observation = like.new_zeros(count, 2 * SEEN + 3), like.new_zeros(count, 2 * SEEN + 3)
        self._now, self._before = self.unclipped[:, :SEEN], self.unclipped[:, SEEN : 2 * SEEN]
        self._bodies, self._fingers = (like.new_zeros(count, len(names), 3) for names in (BODIES, FINGERS))
        self._tcp = like.new_zeros(count, 3)
        self._reach, self.effort, self._closed = like.new_zeros(3, count)
        self._gathered = [gather for part in parts for gather in self._gathers(part)]
        looks = [look for part in parts for look in self._looks(part)]
        self._looked = [(part.arms, look, seen) for part, look, seen in looks if not isinstance(look, Turned)]
        turned = [(look.read(part.arms), seen) for part, look, seen in looks if isinstance(look, Turned)]
        rows = [len(seen) for _, seen in turned]
        self._matrices = like.new_zeros(sum(rows), *(turned[0][0].shape[1:] if turned else (9,)))
        self._turned = [
            (matrices, into, seen)
            for (matrices, seen), into in zip(turned, torch.split(self._matrices, rows), strict=True)
        ]

    def _gathers(self, part: Part) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return from where, which rows, and to where the places of ``BODIES`` and ``FINGERS`` are copied."""
        places: tuple[tuple[str, Source, tuple[str, ...], Tensor], ...] = (
            ("xpos", "body", BODIES, self._bodies),
            ("site_xpos", "site", FINGERS, self._fingers),
        )
        return [
            (
                part.arms.read(field),
                torch.tensor([part.arms.number(source, name) for name in names], device=target.device),
                target[part.where],
            )
            for field, source, names, target in places
        ]

    def _looks(self, part: Part) -> list[tuple[Part, Look | Turned, Tensor]]:
        """Return what is looked at, and the part of the observation that has it."""
        seen, kind = self._now[part.where], part.kind
        places = [(part, look, seen[:, 4 + 7 * index :][:, :3]) for index, look in enumerate(kind.places)]
        return places + [(part, look, seen[:, 7 + 7 * index :][:, :4]) for index, look in enumerate(kind.rotations)]

    def scene(self, part: Part, notes: dict[str, Tensor], kept: dict[object, Tensor]) -> Scene:
        """Return what a reward sees of a part of the worlds."""
        where = part.where
        return Scene(
            arms=part.arms,
            notes=notes,
            seen=self.observation[where, :SEEN],
            tcp=self._tcp[where],
            pads=self._bodies[where, 3:5],
            reach=self._reach[where],
            effort=self.effort[where],
            closed=self._closed[where],
            kept=kept,
        )

    def begin(self, where: slice, rows: Tensor, observations: Tensor) -> None:
        """Set the first observations ``[K, 39]`` of the rows ``[K]`` of a part."""
        self.observation[where][rows] = self.unclipped[where][rows] = observations.to(self.observation)

    def look(self) -> None:
        """Read positions, put the observation together, and compute what many rewards share."""
        self._before.copy_(self._now)
        for places, indices, target in self._gathered:
            torch.index_select(places, 1, indices, out=target)
        for arms, look, seen in self._looked:
            seen.copy_(look(arms))
        for matrices, into, _ in self._turned:
            into.copy_(matrices)
        if self._turned:
            found = torch.split(quaternions(self._matrices), [len(seen) for _, _, seen in self._turned])
            for (_, _, seen), values in zip(self._turned, found, strict=True):
                seen.copy_(values)
        self._now[:, :3] = self._bodies[:, 0]
        apart = norm(self._bodies[:, 1] - self._bodies[:, 2])
        self._now[:, 3] = apart.div_(WIDEST).clamp_(0, 1)
        torch.clamp(self.unclipped, self._low, self._high, out=self.observation)
        torch.add(self._fingers[:, 0], self._fingers[:, 1], out=self._tcp).div_(2)
        torch.linalg.vector_norm(self.observation[:, 4:7] - self._tcp, dim=-1, out=self._reach)
        torch.clamp(self.effort, min=0, out=self._closed)
