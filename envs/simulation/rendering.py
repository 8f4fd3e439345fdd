"""Off-screen rendering of MuJoCo states."""

import os
from ctypes.util import find_library
from importlib import import_module

import mujoco
import numpy as np
from mujoco.rendering.classic import gl_context

from metarl.errors import InputError
from metarl.families.pictures import SIDE

OFFSCREEN = {"EGL": "mujoco.egl", "OSMesa": "mujoco.osmesa"}
ADVICE = "install EGL or OSMesa (Debian: apt-get install libegl1, or libosmesa6), or run with a display"
# Errors of OpenGL libraries that are installed but do not work.
FAILURES = (mujoco.FatalError, RuntimeError, ImportError, AttributeError, OSError)


class StateRenderer:
    """Renders states of one model from its ``track`` camera; holds an OpenGL context until ``close``.

    Args:
        model: compiled model.

    Raises:
        InputError: if OpenGL does not work on this machine.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        _choose_context()
        self._data = mujoco.MjData(model)
        try:
            self._renderer = mujoco.Renderer(model, SIDE, SIDE)
        except FAILURES as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"MuJoCo cannot render on this machine ({reason}); {ADVICE}") from error

    def draw(self, qpos: np.ndarray) -> np.ndarray:
        """Return the picture uint8 ``[H, W, 3]`` of positions ``[nq]``."""
        self._data.qpos[:] = qpos
        mujoco.mj_forward(self._renderer.model, self._data)
        self._renderer.update_scene(self._data, camera="track")
        frame: np.ndarray = self._renderer.render()
        return frame

    def close(self) -> None:
        """Release the OpenGL context."""
        self._renderer.close()


def _choose_context() -> None:
    """Select off-screen rendering if there is no display and the user has not set MUJOCO_GL."""
    if os.environ.get("MUJOCO_GL") or os.environ.get("DISPLAY"):
        return
    for library, module in OFFSCREEN.items():
        if find_library(library):
            gl_context.GLContext = import_module(module).GLContext
            return
    raise InputError(f"MuJoCo cannot render on this machine (neither EGL nor OSMesa is available); {ADVICE}")
