"""Helpers for tests of MuJoCo families: worlds set to a state, and comparisons with Gymnasium's environments."""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDict

from metarl.envs.locomotion.worlds import LocomotionDynamics, LocomotionFamily
from metarl.envs.simulation.batched import quiet_compiler
from metarl.worlds.vector_env import TaskVectorEnv


def worlds(family: LocomotionFamily, tasks: TensorDict) -> TaskVectorEnv:
    """Make one world for each task, at the start of an episode."""
    env = TaskVectorEnv(family, len(tasks), autoreset_mode=AutoresetMode.DISABLED)
    env.set_tasks(tasks)
    env.reset(seed=0)
    return env


def dynamics(env: TaskVectorEnv) -> LocomotionDynamics:
    """Return the worlds of an environment."""
    found = env._dynamics
    assert isinstance(found, LocomotionDynamics)
    return found


def place(env: TaskVectorEnv, qpos: torch.Tensor, qvel: torch.Tensor) -> None:
    """Put every world of ``env`` into one state ``[nq]``, ``[nv]``, as if its episode began there."""
    env.reset()
    simulation = dynamics(env).simulation
    everywhere = torch.ones(env.num_envs, dtype=torch.bool)
    rows = (value.to(simulation.qpos.dtype).expand(env.num_envs, -1) for value in (qpos, qvel))
    simulation.restart(everywhere, *rows)


def gymnasium_env(env_id: str, timestep: float | None = None, **arguments: Any) -> Any:
    """Make one of Gymnasium's environments, without its wrappers and without noise on the terminal."""
    with quiet_compiler():
        made: Any = gymnasium.make(env_id, **arguments).unwrapped
    if timestep is not None:
        made.model.opt.timestep = timestep
    made.reset(seed=1)
    return made


def walk_beside(
    theirs: Any, family: LocomotionFamily, task: Mapping[str, Any], steps: int, scale: float = 1.0
) -> list[dict[str, Any]]:
    """Walk Gymnasium's environment and ours from the same states by the same random actions.

    Both start anew where an episode terminates. Each entry holds pairs (theirs, ours) for one step.
    """
    ours = worlds(family, family.make_task(task))
    simulation, stream, walked = dynamics(ours).simulation, np.random.default_rng(0), []
    over = True
    for _ in range(steps):
        if over:
            qpos = theirs.init_qpos + 0.005 * stream.uniform(-1, 1, theirs.model.nq)
            qvel = theirs.init_qvel + 0.005 * stream.standard_normal(theirs.model.nv)
            theirs.reset()
            theirs.set_state(qpos, qvel)
            place(ours, torch.from_numpy(qpos), torch.from_numpy(qvel))
        space = theirs.action_space
        action = (scale * stream.uniform(space.low, space.high)).astype(np.float32)
        observation, _, over, _, info = theirs.step(action)
        our_observation, reward, terminated, _, our_info = ours.step(torch.from_numpy(action)[None])
        walked.append(
            {
                "qpos": (theirs.data.qpos.copy(), simulation.qpos[0].numpy().copy()),
                "qvel": (theirs.data.qvel.copy(), simulation.qvel[0].numpy().copy()),
                "observation": (observation.astype(np.float32), our_observation[0].numpy()),
                "terminated": (over, bool(terminated[0])),
                "info": (info, {key: value[0].item() for key, value in our_info.items()}),
                "action": (action, action),
                "reward": (None, reward[0].item()),
            }
        )
    return walked
