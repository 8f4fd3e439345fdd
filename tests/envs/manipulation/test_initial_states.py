import numpy as np
import pytest

from metarl.envs.manipulation import initial_states
from metarl.envs.manipulation.initial_states import Prototype
from metarl.envs.manipulation.package import indices
from metarl.errors import InputError
from tests.envs.manipulation.theirs import drawn, theirs


def prototype(name: str) -> Prototype:
    return Prototype(indices()[name])


def padded(vector: np.ndarray) -> np.ndarray:
    return np.concatenate((vector, np.zeros(6 - len(vector))))


@pytest.mark.parametrize("name", ["push-v3", "basketball-v3", "shelf-place-v3", "drawer-open-v3"])
def test_an_initial_state_is_a_fresh_reset_of_the_package_whatever_came_before(name: str) -> None:
    made = prototype(name)
    *others, last = drawn(name, 3)
    for vector in others:
        made.initial_state(padded(vector))
    initial_state, env = made.initial_state(padded(last)), theirs(name, last)
    observation, _ = env.reset()
    assert np.array_equal(initial_state.observation.numpy(), observation)
    assert np.array_equal(initial_state.rows["qpos"].numpy(), env.data.qpos)
    assert np.array_equal(initial_state.rows["body_pos"].numpy(), env.model.body_pos)
    assert np.array_equal(initial_state.rows["obj_init_pos"].numpy(), env.obj_init_pos)


def test_a_task_is_reset_once_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial_states, "MAX_CACHED", 2)
    made, vectors = prototype("reach-v3"), [padded(vector) for vector in drawn("reach-v3", 3)]
    first = made.initial_state(vectors[0])
    assert made.initial_state(vectors[0]) is first
    made.initial_state(vectors[1])
    made.initial_state(vectors[2])
    assert made.initial_state(vectors[0]) is not first


def test_objects_that_are_too_near_the_goal_are_refused() -> None:
    near = np.array([0.0, 0.7, 0.02, 0.0, 0.8, 0.1])
    message = r"^Meta-World's reach-v3 has no task \[.*\]: object and goal are too close; move them apart$"
    with pytest.raises(InputError, match=message):
        prototype("reach-v3").initial_state(near)


def test_placements_out_of_reach_are_refused() -> None:
    message = r"^Meta-World's reach-v3 has no task \[.*\]: placements must lie between \[-0.1, "
    with pytest.raises(InputError, match=message):
        prototype("reach-v3").initial_state(np.array([0.5, 0.6, 0.02, 0.0, 0.8, 0.1]))
