from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from mujoco.batch import Batch

from metarl.envs.manipulation.arms import FIELDS, STATE, CpuArms
from metarl.envs.manipulation.initial_states import prototype
from metarl.envs.manipulation.package import indices
from tests.envs.manipulation.theirs import Actor, drawn, theirs


def arms_like(env: Any, name: str, count: int, room: int) -> CpuArms:
    """Return simulations in the state of one of the package's environments."""
    made = CpuArms(Batch(prototype(indices()[name], (), True, "v2").model, room), count)
    rows = {field: np.array(getattr(env.data, field)) for field in STATE}
    rows.update({field: np.array(getattr(env.model, field)) for field in FIELDS})
    repeated = {field: torch.from_numpy(np.repeat(values[None], count, 0)) for field, values in rows.items()}
    made.restart(torch.arange(count), repeated)
    return made


def test_the_first_simulations_of_a_batch_with_more_room_are_the_packages() -> None:
    env = theirs("door-open-v3", drawn("door-open-v3", 1)[0])
    env.reset()
    arms = arms_like(env, "door-open-v3", 2, room=5)
    env.do_simulation([0.5, -0.5], 5)
    arms.rows["ctrl"].copy_(torch.tensor([0.5, -0.5]))
    arms.step()
    assert torch.equal(arms.rows["qpos"], torch.from_numpy(env.data.qpos).expand(2, -1))
    handle = arms.read("geom_xpos")[:, arms.index_of("geom", "handle")]
    mujoco.mj_forward(env.model, env.data)
    assert np.array_equal(handle.numpy(), np.stack([env.data.geom("handle").xpos] * 2))


def test_touch_is_the_packages() -> None:
    name, vector = "push-v3", drawn("push-v3", 1)[0]
    env = theirs(name, vector, hidden=False)
    seen, actor, touched = env.reset()[0], Actor(name, True, 0), set()
    for _ in range(60):
        seen, *_ = env.step(actor.act(seen))
        touching = bool(env.touching_main_object)
        if touching not in touched:
            touched.add(touching)
            arms = arms_like(env, name, 3, room=3)
            assert arms.gripped(torch.tensor([0, 2]), "objGeom").tolist() == [touching] * 2
    assert touched == {False, True}


def test_a_body_that_is_not_there_is_refused() -> None:
    env = theirs("push-v3", drawn("push-v3", 1)[0])
    env.reset()
    with pytest.raises(KeyError, match="nonsense"):
        arms_like(env, "push-v3", 1, room=1).index_of("body", "nonsense")
