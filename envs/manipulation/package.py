"""The package ``metaworld``: imported on first use, and patched to run on the installed version of MuJoCo."""

import difflib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from types import ModuleType
from typing import Any, Literal

from metarl.errors import InputError

VERSION = "3.0.0"
# Versions of the reward functions.
Version = Literal["v1", "v2"]


def load_package() -> ModuleType:
    """Import ``metaworld``, patched to run on the installed version of MuJoCo.

    MuJoCo 4 stores 12 numbers per weld, earlier versions 11, and the package assigns 11 numbers to the whole row. The
    patch, in the package's own class, assigns them to the first 11, so that everything the package makes runs. The
    twelfth keeps its value, which does not affect the robot's motion.

    Raises:
        InputError: when the package is missing, or is another version.
    """
    try:
        import metaworld
    except ImportError as error:
        raise InputError(f"Meta-World is not installed ({error}); pip install 'metarl-gym[metaworld]'") from None
    if (installed := version("metaworld")) != VERSION:
        raise InputError(f"Meta-World {installed} is installed, not {VERSION}; pip install 'metarl-gym[metaworld]'")
    import mujoco

    if mujoco.mjNEQDATA > 11:
        base: Any = metaworld.sawyer_xyz_env.SawyerMocapBase
        base.reset_mocap_welds = _reset_mocap_welds
    return metaworld


def environments() -> list[tuple[str, type[Any]]]:
    """Return the names and classes of the package's 50 environments, in its order."""
    return list(load_package().ALL_V3_ENVIRONMENTS.items())


@cache
def indices() -> dict[str, int]:
    """Return each environment's index in the package's list, by name."""
    return {name: index for index, (name, _) in enumerate(environments())}


def check_names(names: Iterable[str]) -> None:
    """Check that the package has these environments.

    Raises:
        InputError: for an unknown name; it suggests similar ones.
    """
    for name in names:
        if name not in indices():
            near = difflib.get_close_matches(name, indices(), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(indices())}"
            raise InputError(f"Meta-World has no environment {name!r}; {hint}")


def _reset_mocap_welds(env: Any) -> None:
    import mujoco

    welds = env.model.eq_type == mujoco.mjtEq.mjEQ_WELD
    env.model.eq_data[welds, :11] = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0]
