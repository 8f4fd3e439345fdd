from ctypes.util import find_library

import mujoco
import numpy as np
import pytest

from metarl.envs.simulation import rendering
from metarl.envs.simulation.batched import gymnasium_model
from metarl.envs.simulation.rendering import StateRenderer
from metarl.errors import InputError
from metarl.families.family import make_family
from metarl.worlds.numpy_env import TaskEnv

MODEL = gymnasium_model("half_cheetah")
needs_opengl = pytest.mark.skipif(
    not any(find_library(name) for name in rendering.OFFSCREEN), reason="needs EGL or OSMesa; this machine has neither"
)


@needs_opengl
def test_a_picture_shows_the_state() -> None:
    renderer = StateRenderer(MODEL)
    standing, turned = MODEL.qpos0.copy(), MODEL.qpos0.copy()
    turned[2] = 1.5
    frames = [renderer.draw(qpos) for qpos in (standing, turned, standing)]
    renderer.close()
    assert {(frame.shape, frame.dtype) for frame in frames} == {((256, 256, 3), np.dtype(np.uint8))}
    assert frames[0].std() > 10
    assert np.array_equal(frames[0], frames[2])
    assert (frames[0] != frames[1]).any(-1).mean() > 0.01


@needs_opengl
def test_the_camera_follows_the_robot() -> None:
    # Far away the robot is still in the middle of the picture; the chequered floor has moved.
    renderer = StateRenderer(MODEL)
    away = MODEL.qpos0.copy()
    away[0] = 20.0
    here, there = (renderer.draw(qpos)[60:150, 60:200] for qpos in (MODEL.qpos0, away))
    renderer.close()
    assert np.abs(here.astype(int) - there.astype(int)).mean() < 10


@needs_opengl
def test_drawing_leaves_the_world_alone() -> None:
    env, twin = (TaskEnv(make_family("half-cheetah-vel"), render_mode="rgb_array") for _ in range(2))
    for each in (env, twin):
        each.reset(seed=0)
    env.render()
    action = env.action_space.sample()
    assert np.array_equal(env.step(action)[0], twin.step(action)[0])
    env.close()


def test_without_opengl_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUJOCO_GL", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rendering, "find_library", lambda name: None)
    with pytest.raises(InputError, match=r"neither EGL nor OSMesa is available.*apt-get install libegl1"):
        StateRenderer(MODEL)


def test_an_opengl_that_does_not_work_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise mujoco.FatalError("no context\nand more")

    monkeypatch.setattr(mujoco, "Renderer", fail)
    with pytest.raises(InputError, match=r"cannot render on this machine \(no context\); install EGL"):
        StateRenderer(MODEL)
