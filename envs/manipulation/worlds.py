"""Worlds of several of Meta-World's environments, stepped together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.manipulation.arms import Engine
from metarl.envs.manipulation.scene import Kind
from metarl.envs.manipulation.sight import Part, Sight
from metarl.envs.manipulation.starts import Prototype, Start
from metarl.family import Dynamics, Transition

# The mocap body moves by this much, in m, for an action of 1.
ACTION_SCALE = 0.01


@dataclass(frozen=True)
class _Group(Part):
    """The worlds of one environment, the notes of their tasks, and terms of the start that are kept."""

    prototype: Prototype
    notes: dict[str, Tensor]
    kept: dict[object, Tensor]

    @property
    def width(self) -> int:
        """Their number."""
        return len(self.arms.rows["qpos"])

    def rows(self) -> dict[str, Tensor]:
        """Return live tensors of all that a restart sets."""
        return {**self.arms.rows, **self.notes}


class ManipulationDynamics(Dynamics):
    """B worlds, each of the environment that its task names.

    Worlds of the same environment are neighbours in all tensors here, and share a batch of simulations; where the
    environments of the tasks change, worlds are grouped anew.

    Args:
        kinds: of the environments, by their index in the package's list.
        prototypes: gives the prototype of an environment.
        engine: makes and steps simulations.
        num_envs: B.
        device: where the tensors live.
    """

    capturable: ClassVar[bool] = False

    def __init__(
        self,
        kinds: Mapping[int, Kind],
        prototypes: Callable[[int], Prototype],
        engine: Engine,
        num_envs: int,
        device: torch.device,
    ) -> None:
        self._kinds, self._prototypes, self._engine = kinds, prototypes, engine
        self._device = device
        self._environments = torch.full((num_envs,), -1)
        self._groups: list[_Group] = []
        self._order = self._place = torch.arange(num_envs, device=device)
        self._sight: Sight

    def reset(self, tasks: TensorDict, mask: Tensor, generator: torch.Generator) -> None:
        """Start episodes as the package does, whose starts depend on the task alone."""
        mask, environments = mask.cpu(), torch.where(mask.cpu(), tasks["environment"].cpu(), self._environments)
        placements = tasks["placement"].cpu().numpy()
        starts = {
            world: self._prototypes(int(environments[world])).start(placements[world])
            for world in mask.nonzero().flatten().tolist()
        }
        if not torch.equal(environments, self._environments):
            self._regroup(environments, ~mask)
        for group in self._groups:
            self._restart(group, starts)

    def _regroup(self, environments: Tensor, kept: Tensor) -> None:
        """Make groups for other environments, and bring the worlds ``kept`` (bool ``[B]``) over."""
        moved = self._rows_of(kept) if kept.any() else {}
        order = torch.argsort(environments, stable=True)
        self._environments, self._order = environments, order.to(self._device)
        self._place = torch.argsort(self._order)
        counts = {
            environment: count for environment, count in enumerate(torch.bincount(environments).tolist()) if count
        }
        self._all_arms = self._engine.make(counts)
        ends = accumulate(counts.values())
        self._groups = [
            _Group(self._kinds[environment], arms, slice(end - count, end), self._prototypes(environment), {}, {})
            for (environment, count), arms, end in zip(counts.items(), self._all_arms, ends, strict=True)
        ]
        like = self._groups[0].arms.rows["qpos"]
        self._low, self._high = (self._of_prototypes(name).to(like) for name in ("low", "high"))
        self._hands, self._controls = (like.new_zeros(len(environments), size) for size in (3, 2))
        self._sight = Sight(self._groups, self._of_prototypes("observation_bounds"))
        self._scenes = [self._sight.scene(group, group.notes, group.kept) for group in self._groups]
        self._mocaps = [(group.arms.rows["mocap_pos"][:, 0], self._hands[group.where]) for group in self._groups]
        self._efforts = [(group.arms.rows["ctrl"], self._controls[group.where]) for group in self._groups]
        for group in self._groups:
            self._restart(group, moved)

    def _of_prototypes(self, name: str) -> Tensor:
        """Return an attribute of each world's prototype, ``[B, ...]``."""
        values = [(group.width, getattr(group.prototype, name)) for group in self._groups]
        return torch.cat([value.expand(width, *value.shape) for width, value in values])

    def _rows_of(self, kept: Tensor) -> dict[int, Start]:
        """Return the present state of worlds, as a start."""
        found = {}
        for group in self._groups:
            rows = group.rows()
            for row, world in enumerate(self._order[group.where].tolist()):
                if kept[world]:
                    copies = {name: values[row].clone() for name, values in rows.items()}
                    found[world] = Start(copies, self._sight.observation[group.where][row].clone())
        return found

    def _restart(self, group: _Group, starts: Mapping[int, Start]) -> None:
        """Set the worlds of a group that are among ``starts``."""
        worlds = self._order[group.where].tolist()
        chosen = [row for row, world in enumerate(worlds) if world in starts]
        if not chosen:
            return
        given = [starts[worlds[row]] for row in chosen]
        rows = torch.tensor(chosen, device=self._device)
        stacked = {name: torch.stack([start.rows[name] for start in given]) for name in given[0].rows}
        group.arms.restart(rows, {name: stacked[name].to(live) for name, live in group.arms.rows.items()})
        for name in group.prototype.notes:
            empty = torch.zeros(len(worlds), *stacked[name].shape[1:]).to(self._hands)
            group.notes.setdefault(name, empty)[rows] = stacked[name].to(empty)
        self._sight.begin(group.where, rows, torch.stack([start.observation for start in given]))
        self._hands[group.where][rows] = stacked["mocap_pos"][:, 0].to(self._hands)
        group.kept.clear()

    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        """Move the mocap body, hold the gripper's effort, and step; info has ``success``."""
        with torch.inference_mode():  # Hundreds of operations on few numbers, of each of which autograd takes a share.
            self._advance(actions[self._order])
            outcomes = [group.kind.reward(scene) for group, scene in zip(self._groups, self._scenes, strict=True)]
        rewards, successes = (torch.cat(values)[self._place].float() for values in zip(*outcomes, strict=True))
        ended = torch.zeros(len(actions), dtype=torch.bool, device=actions.device)
        return Transition(rewards, ended, {"success": successes})

    def _advance(self, actions: Tensor) -> None:
        """Step under actions in the groups' order, and look."""
        moved = self._hands + actions[:, :3] * ACTION_SCALE
        torch.clamp(moved, self._low, self._high, out=self._hands)
        effort = self._sight.effort.copy_(actions[:, 3])
        torch.stack((effort, -effort), 1, out=self._controls)
        for live, values in (*self._mocaps, *self._efforts):
            live.copy_(values)
        self._engine.step(self._all_arms)
        self._sight.look()

    def observe(self) -> Tensor:
        """Return observations ``[B, 39]`` in float32."""
        return self._sight.observation[self._place].float()

    def state(self, name: str) -> Tensor:
        """Return a copy ``[B, ...]`` of a field of the state, of worlds whose models have it in the same size."""
        return torch.cat([group.arms.rows[name] for group in self._groups])[self._place]

    def unstable(self) -> Tensor:
        """Return a bool ``[B]``, true where the physics broke down within the episode."""
        return torch.cat([group.arms.unstable() for group in self._groups])[self._place]
