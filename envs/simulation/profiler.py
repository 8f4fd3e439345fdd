"""MuJoCo's profiler, turned off while worlds are stepped."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


def _find_clock() -> ctypes.c_void_p:
    """Return the callback by which MuJoCo reads the time; where it cannot be found, one that nobody calls.

    Its library is among those of the extension module that installs it. ``mujoco.set_mjcb_time`` does not change it.
    """
    module = find_spec("mujoco._callbacks")
    if module is None or module.origin is None:
        return ctypes.c_void_p()
    library = ctypes.CDLL(module.origin)
    return ctypes.c_void_p.in_dll(library, "mjcb_time") if hasattr(library, "mjcb_time") else ctypes.c_void_p()


_CLOCK = _find_clock()


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
