import mujoco

from metarl.envs.simulation.batched import gymnasium_model
from metarl.envs.simulation.profiler import unprofiled


def timed() -> bool:
    """Return whether MuJoCo measures the duration of a step."""
    model = gymnasium_model("half_cheetah")
    data = mujoco.MjData(model)
    mujoco.mj_step(model, data)
    return bool(data.timer[mujoco.mjtTimer.mjTIMER_STEP].duration > 0)


def test_steps_are_timed_again_afterwards() -> None:
    assert timed()
    with unprofiled():
        assert not timed()
        with unprofiled():
            assert not timed()
        assert not timed()
    assert timed()
