"""MuJoCo's profiler, turned off while worlds are stepped."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from mujoco import _callbacks

# MuJoCo reads the time by this callback, whose library is among those of the extension module that installs it.
_CLOCK = ctypes.c_void_p.in_dll(ctypes.CDLL(_callbacks.__file__), "mjcb_time")


@contextmanager
def unprofiled() -> Iterator[None]:
    """Step without reading the time.

    The Python package installs a clock, with which MuJoCo times the parts of every ``mj_step`` (``MjData.timer``). That
    takes about a seventh of a half-cheetah's step, and a batch of simulations keeps no timers.
    """
    clock = _CLOCK.value
    _CLOCK.value = None
    try:
        yield
    finally:
        if clock is not None:  # otherwise another thread has turned it off, and turns it on again
            _CLOCK.value = clock
