"""Worlds of several Meta-World environments, stepped together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
from tensordict import TensorDict
from torch import Tensor

from metarl.envs.manipulation.arms import Engine
from metarl.envs.manipulation.initial_states import InitialState, Prototype
from metarl.envs.manipulation.observer import Observer, WorldGroup
from metarl.envs.manipulation.scene import EnvironmentSpec
from metarl.families.family import Dynamics, Transition

# Movement of the mocap body for an action of 1, in m.
ACTION_SCALE = 0.01


@dataclass(frozen=True)
class _Group(WorldGroup):
    """The worlds of one environment, with the attributes that their resets set and the cache of their scene."""

    prototype: Prototype
    attributes: dict[str, Tensor]
    cache: dict[object, Tensor]

    @property
    def count(self) -> int:
        """Number of worlds."""
        return len(self.arms.rows["qpos"])

    def rows(self) -> dict[str, Tensor]:
        """Return live tensors of everything that a reset sets."""
        return {**self.arms.rows, **self.attributes}


class ManipulationDynamics(Dynamics):
    """B worlds, each of its task's environment.

    Internally, worlds of the same environment are adjacent in all tensors and share a batch of simulations. When tasks
    of other environments are set, the worlds are regrouped.

    Args:
        specs: specs of the environments, by index in the package's list.
        prototypes: returns the prototype of an environment.
        engine: makes and steps simulations.
        num_envs: B.
        device: device of the tensors.
    """

    capturable: ClassVar[bool] = False

    def __init__(
        self,
        specs: Mapping[int, EnvironmentSpec],
        prototypes: Callable[[int], Prototype],
        engine: Engine,
        num_envs: int,
        device: torch.device,
    ) -> None:
        self._specs, self._prototypes, self._engine = specs, prototypes, engine
        self._device = device
        self._environments = torch.full((num_envs,), -1)
        self._groups: list[_Group] = []
        self._order = self._inverse_order = torch.arange(num_envs, device=device)
        self._observer: Observer

    def reset(self, tasks: TensorDict, mask: Tensor, generator: torch.Generator) -> None:
        """Start episodes as the package does: the initial state depends only on the task."""
        mask, environments = mask.cpu(), torch.where(mask.cpu(), tasks["environment"].cpu(), self._environments)
        placements = tasks["placement"].cpu().numpy()
        initial_states = {
            world: self._prototypes(int(environments[world])).initial_state(placements[world])
            for world in mask.nonzero().flatten().tolist()
        }
        if not torch.equal(environments, self._environments):
            self._regroup(environments, ~mask)
        for group in self._groups:
            self._restart(group, initial_states)

    def _regroup(self, environments: Tensor, kept: Tensor) -> None:
        """Make groups for a new set of environments, and carry over the state of the worlds ``kept`` (bool ``[B]``)."""
        moved = self._states_of(kept) if kept.any() else {}
        order = torch.argsort(environments, stable=True)
        self._environments, self._order = environments, order.to(self._device)
        self._inverse_order = torch.argsort(self._order)
        counts = {
            environment: count for environment, count in enumerate(torch.bincount(environments).tolist()) if count
        }
        self._all_arms = self._engine.make(counts)
        ends = accumulate(counts.values())
        self._groups = [
            _Group(self._specs[environment], arms, slice(end - count, end), self._prototypes(environment), {}, {})
            for (environment, count), arms, end in zip(counts.items(), self._all_arms, ends, strict=True)
        ]
        like = self._groups[0].arms.rows["qpos"]
        self._low, self._high = (self._from_prototypes(name).to(like) for name in ("low", "high"))
        self._hands, self._controls = (like.new_zeros(len(environments), size) for size in (3, 2))
        self._observer = Observer(self._groups, self._from_prototypes("observation_bounds"))
        self._scenes = [self._observer.scene(group, group.attributes, group.cache) for group in self._groups]
        self._mocaps = [(group.arms.rows["mocap_pos"][:, 0], self._hands[group.span]) for group in self._groups]
        self._efforts = [(group.arms.rows["ctrl"], self._controls[group.span]) for group in self._groups]
        for group in self._groups:
            self._restart(group, moved)

    def _from_prototypes(self, name: str) -> Tensor:
        """Return an attribute of each world's prototype, ``[B, ...]``."""
        values = [(group.count, getattr(group.prototype, name)) for group in self._groups]
        return torch.cat([value.expand(count, *value.shape) for count, value in values])

    def _states_of(self, kept: Tensor) -> dict[int, InitialState]:
        """Return the current state of the worlds ``kept`` in the form of initial states."""
        found = {}
        for group in self._groups:
            rows = group.rows()
            for row, world in enumerate(self._order[group.span].tolist()):
                if kept[world]:
                    copies = {name: values[row].clone() for name, values in rows.items()}
                    found[world] = InitialState(copies, self._observer.observation[group.span][row].clone())
        return found

    def _restart(self, group: _Group, initial_states: Mapping[int, InitialState]) -> None:
        """Set the state of those worlds of a group that have an entry in ``initial_states``."""
        worlds = self._order[group.span].tolist()
        chosen = [row for row, world in enumerate(worlds) if world in initial_states]
        if not chosen:
            return
        given = [initial_states[worlds[row]] for row in chosen]
        rows = torch.tensor(chosen, device=self._device)
        stacked = {name: torch.stack([state.rows[name] for state in given]) for name in given[0].rows}
        group.arms.restart(rows, {name: stacked[name].to(live) for name, live in group.arms.rows.items()})
        for name in group.prototype.attributes:
            empty = torch.zeros(len(worlds), *stacked[name].shape[1:]).to(self._hands)
            group.attributes.setdefault(name, empty)[rows] = stacked[name].to(empty)
        self._observer.set_initial(group.span, rows, torch.stack([state.observation for state in given]))
        self._hands[group.span][rows] = stacked["mocap_pos"][:, 0].to(self._hands)
        group.cache.clear()

    def step(self, actions: Tensor, tasks: TensorDict, generator: torch.Generator) -> Transition:
        """Move the mocap body, set the gripper's effort and step; info has ``success``."""
        with torch.inference_mode():  # Hundreds of small operations: autograd's overhead counts.
            self._advance(actions[self._order])
            outcomes = [group.spec.reward(scene) for group, scene in zip(self._groups, self._scenes, strict=True)]
        rewards, successes = (torch.cat(values)[self._inverse_order].float() for values in zip(*outcomes, strict=True))
        ended = torch.zeros(len(actions), dtype=torch.bool, device=actions.device)
        return Transition(rewards, ended, {"success": successes})

    def _advance(self, actions: Tensor) -> None:
        """Apply actions, given in the order of the groups, and update the observation."""
        moved = self._hands + actions[:, :3] * ACTION_SCALE
        torch.clamp(moved, self._low, self._high, out=self._hands)
        effort = self._observer.effort.copy_(actions[:, 3])
        torch.stack((effort, -effort), 1, out=self._controls)
        for live, values in (*self._mocaps, *self._efforts):
            live.copy_(values)
        self._engine.step(self._all_arms)
        self._observer.update()

    def observe(self) -> Tensor:
        """Return observations ``[B, 39]`` in float32."""
        return self._observer.observation[self._inverse_order].float()

    def state(self, name: str) -> Tensor:
        """Return a copy ``[B, ...]`` of a field of the state; it must have the same size in all environments."""
        return torch.cat([group.arms.rows[name] for group in self._groups])[self._inverse_order]

    def unstable(self) -> Tensor:
        """Return a bool ``[B]``, true where the physics has become unstable in this episode."""
        return torch.cat([group.arms.unstable() for group in self._groups])[self._inverse_order]
