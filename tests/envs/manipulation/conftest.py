"""What tests of Meta-World share: each model is compiled once, and nothing of them is kept for later tests."""

import copy
from collections.abc import Iterator
from functools import lru_cache

import mujoco
import pytest

from metarl.envs.manipulation import initial_states


@pytest.fixture(scope="package", autouse=True)
def _models() -> Iterator[None]:
    compiled = lru_cache(maxsize=2)(mujoco.MjModel.from_xml_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mujoco.MjModel, "from_xml_path", lambda path: copy.copy(compiled(path)))
        yield
    initial_states.prototype.cache_clear()
