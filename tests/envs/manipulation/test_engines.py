import sys

import numpy as np
import pytest
import torch

from metarl.envs.manipulation import engines
from metarl.envs.manipulation.engines import SPECS, CpuEngine, check_placement
from metarl.envs.manipulation.initial_states import Prototype, Version, prototype
from metarl.envs.manipulation.package import environments, indices
from metarl.errors import InputError
from tests.envs.manipulation.theirs import drawn

PUSH, DOOR = indices()["push-v3"], indices()["door-open-v3"]


def prototypes(environment: int) -> Prototype:
    return prototype(environment, (), True, "v2")


def test_both_rewards_know_every_environment() -> None:
    names = {name for name, _ in environments()}
    assert [set(specs) for specs in SPECS.values()] == [names, names]


def test_a_batch_is_remade_only_for_more_worlds_or_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int, int]] = []
    original = engines.Batch

    def note(model: object, count: int, threads: int) -> object:
        made.append(("push" if model is prototypes(PUSH).model else "door", count, threads))
        return original(model, count, threads)

    monkeypatch.setattr(engines, "Batch", note)
    monkeypatch.setattr(engines, "share_of_cores", lambda: 3)
    engine = CpuEngine(prototypes)
    widths = [
        [len(arms.rows["qpos"]) for arms in engine.make(counts)]
        for counts in ({PUSH: 4, DOOR: 1}, {PUSH: 2}, {PUSH: 4}, {PUSH: 5})
    ]
    assert widths == [[4, 1], [2], [4], [5]]
    # The cores are shared by the environments: two threads for each of two, three for one.
    assert made == [("push", 4, 2), ("door", 1, 1), ("push", 4, 3), ("push", 5, 3)]


def test_without_the_extra_a_device_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metarl.envs.simulation.warp", None)
    with pytest.raises(InputError, match=r"which is not installed; pip install 'metarl-gym\[gpu\]'$"):
        engines.make_worlds(1, torch.device("cuda"), True, "v2")


def test_a_placement_of_the_packages_is_accepted_and_another_refused() -> None:
    (vector,) = drawn("door-open-v3", 1)
    padded = np.concatenate((vector, np.zeros(3)))
    check_placement(DOOR, padded)
    with pytest.raises(InputError, match=r"^Meta-World's door-open-v3 has no task "):
        check_placement(DOOR, padded + 1)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_worlds_have_the_rewards_that_were_asked_for(version: Version) -> None:
    worlds = engines.make_worlds(1, torch.device("cpu"), True, version)
    assert worlds._specs[PUSH] is SPECS[version]["push-v3"]
