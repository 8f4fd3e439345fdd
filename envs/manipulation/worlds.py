"""Worlds of several of Meta-World's environments, stepped together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.manipulation.arms import Arms
from metarl.envs.manipulation.scene import Kind, Scene
from metarl.envs.manipulation.starts import Prototype, Start
from metarl.envs.manipulation.terms import norm
from metarl.family import Dynamics, Transition

# The mocap body moves by this much, in m, for an action of 1.
ACTION_SCALE = 0.01
# The claws are at most about this far apart, in m.
WIDEST = 0.1
BODIES = ("hand", "rightclaw", "leftclaw", "leftpad", "rightpad")
FINGERS = ("rightEndEffector", "leftEndEffector")
# Hand, gripper and objects fill this many numbers of an observation, those of the step before as many, then the goal.
SEEN = 18

# Makes W simulations of the model of an environment, given its index and W.
ArmsMaker = Callable[[int, int], Arms]


@dataclass(frozen=True)
class _Group:
    """The worlds of one environment: the rows ``where`` of all tensors in the groups' order."""

    kind: Kind
    prototype: Prototype
    arms: Arms
    notes: dict[str, Tensor]
    where: slice
    bodies: Tensor
    fingers: Tensor

    def rows(self) -> dict[str, Tensor]:
        """Return live tensors of all that a restart sets."""
        return {**self.arms.rows, **self.notes}

    def look(self, seen: Tensor, bodies: Tensor, fingers: Tensor) -> None:
        """Write the objects to ``seen`` ``[W, 18]``, and the places of ``BODIES`` and ``FINGERS``."""
        torch.index_select(self.arms.read("xpos"), 1, self.bodies, out=bodies)
        torch.index_select(self.arms.read("site_xpos"), 1, self.fingers, out=fingers)
        for index, (place, rotation) in enumerate(zip(self.kind.places, self.kind.rotations, strict=True)):
            first = 4 + 7 * index
            seen[:, first : first + 3] = place(self.arms)
            seen[:, first + 3 : first + 7] = rotation(self.arms)


class ManipulationDynamics(Dynamics):
    """B worlds, each of the environment that its task names.

    Worlds of the same environment are neighbours in all tensors here, and share a batch of simulations; where the
    environments of the tasks change, worlds are grouped anew.

    Args:
        kinds: of the environments, by their index in the package's list.
        prototypes: gives the prototype of an environment.
        make_arms: makes simulations.
        num_envs: B.
        device: where the tensors live.
        hidden: whether zeros are in the goal's place in the observation.
    """

    capturable: ClassVar[bool] = False

    def __init__(
        self,
        kinds: Mapping[int, Kind],
        prototypes: Callable[[int], Prototype],
        make_arms: ArmsMaker,
        num_envs: int,
        device: torch.device,
        hidden: bool,
    ) -> None:
        self._kinds, self._prototypes, self._make_arms, self._hidden = kinds, prototypes, make_arms, hidden
        self._device = device
        self._environments = torch.full((num_envs,), -1)
        self._groups: list[_Group] = []
        self._order = self._place = torch.arange(num_envs, device=device)
        self._observation = torch.zeros(num_envs, 2 * SEEN + 3, dtype=torch.float64, device=device)

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
        order = torch.argsort(environments, stable=True)
        moved = self._rows_of(kept) if kept.any() else {}
        observation = self._observation[self._place]
        self._environments, self._order = environments, order.to(self._device)
        self._place = torch.argsort(self._order)
        self._observation = observation[self._order]
        counts = torch.bincount(environments).tolist()
        self._groups, first = [], 0
        for environment, count in enumerate(counts):
            if count:
                self._groups.append(self._make_group(environment, slice(first, first + count)))
                first += count
        like = self._groups[0].arms.rows["qpos"]
        self._low, self._high = (
            torch.cat([getattr(group.prototype, end).expand(_width(group), -1) for group in self._groups]).to(like)
            for end in ("low", "high")
        )
        self._bounds = torch.cat(
            [group.prototype.observation_bounds.expand(_width(group), -1, -1) for group in self._groups]
        ).to(like)
        self._hands = torch.zeros(len(environments), 3, dtype=like.dtype, device=like.device)
        self._bodies, self._fingers = (
            torch.zeros(len(environments), len(names), 3).to(like) for names in (BODIES, FINGERS)
        )
        self._seen = torch.zeros(len(environments), SEEN).to(like)
        for group in self._groups:
            self._restart(group, moved)

    def _make_group(self, environment: int, where: slice) -> _Group:
        prototype = self._prototypes(environment)
        arms = self._make_arms(environment, where.stop - where.start)
        like = arms.rows["qpos"]
        bodies, fingers = (
            torch.tensor([arms.number(source, name) for name in names], device=like.device)
            for source, names in (("body", BODIES), ("site", FINGERS))
        )
        return _Group(self._kinds[environment], prototype, arms, {}, where, bodies, fingers)

    def _rows_of(self, kept: Tensor) -> dict[int, Start]:
        """Return the present state of worlds, as a start."""
        found = {}
        for group in self._groups:
            rows = group.rows()
            for row, world in enumerate(self._order[group.where].tolist()):
                if kept[world]:
                    copies = {name: values[row].clone() for name, values in rows.items()}
                    found[world] = Start(copies, self._observation[group.where][row].clone())
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
        observation = torch.stack([start.observation for start in given]).to(self._observation)
        self._observation[group.where][rows] = observation
        self._seen[group.where][rows] = observation[:, :SEEN].to(self._seen)
        self._hands[group.where][rows] = stacked["mocap_pos"][:, 0].to(self._hands)

    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        """Move the mocap body, hold the gripper's effort, and step; info has ``success``."""
        actions = actions[self._order]
        self._hands = torch.clamp(self._hands + actions[:, :3] * ACTION_SCALE, self._low, self._high)
        efforts = actions[:, 3].to(self._hands)
        controls = torch.stack((efforts, -efforts), 1)
        for group in self._groups:
            group.arms.rows["mocap_pos"][:, 0] = self._hands[group.where]
            group.arms.rows["ctrl"].copy_(controls[group.where])
            group.arms.step()
        self._look()
        rewards, successes = self._judge(efforts)
        ended = torch.zeros(len(actions), dtype=torch.bool, device=actions.device)
        return Transition(rewards[self._place].float(), ended, {"success": successes[self._place].float()})

    def _look(self) -> None:
        """Read positions, and put the observation together."""
        previous, self._seen = self._seen, torch.zeros_like(self._seen)
        for group in self._groups:
            group.look(self._seen[group.where], self._bodies[group.where], self._fingers[group.where])
        apart = norm(self._bodies[:, 1] - self._bodies[:, 2])
        self._seen[:, :3] = self._bodies[:, 0]
        self._seen[:, 3] = (apart / WIDEST).clamp(0, 1)
        goals = [group.notes["_target_pos"] for group in self._groups]
        goal = torch.zeros_like(self._hands) if self._hidden else torch.cat(goals)
        self._observation = torch.clamp(torch.cat((self._seen, previous, goal), 1), *self._bounds.unbind(1))

    def _judge(self, efforts: Tensor) -> tuple[Tensor, Tensor]:
        """Return rewards ``[B]`` and successes (bool ``[B]``), in the groups' order."""
        pads = self._bodies[:, 3:5]
        tcp = (self._fingers[:, 0] + self._fingers[:, 1]) / 2
        outcomes = []
        for group in self._groups:
            where = group.where
            seen = self._observation[where, :SEEN]
            scene = Scene(group.arms, group.notes, seen, tcp[where], pads[where], efforts[where])
            outcomes.append(group.kind.reward(scene))
        rewards, successes = zip(*outcomes, strict=True)
        return torch.cat(rewards), torch.cat(successes)

    def observe(self) -> Tensor:
        """Return observations ``[B, 39]`` in float32."""
        return self._observation[self._place].float()

    def state(self, name: str) -> Tensor:
        """Return a copy ``[B, ...]`` of a field of the state, of worlds whose models have it in the same size."""
        return torch.cat([group.arms.rows[name] for group in self._groups])[self._place]

    def unstable(self) -> Tensor:
        """Return a bool ``[B]``, true where the physics broke down within the episode."""
        return torch.cat([group.arms.unstable() for group in self._groups])[self._place]


def _width(group: _Group) -> int:
    return len(group.arms.rows["qpos"])
