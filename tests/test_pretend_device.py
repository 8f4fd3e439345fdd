"""Learners and families on a device that is none (``tests/pretend.py``): nothing is mixed, nothing waits unasked."""

import runpy
from typing import Any

import pytest
import torch
from gymnasium.spaces import Discrete

from metarl.agents.in_context.memories.memory import MEMORIES
from metarl.devices.graphs import RECORDERS
from metarl.envs.locomotion.worlds import LocomotionFamily
from metarl.envs.simulation import batched
from metarl.envs.wrapped.gymnasium_worlds import EnvironmentFamily
from metarl.families.family import FAMILIES, TaskFamily, make_family
from metarl.families.splits import TaskSplit
from metarl.learning.learner import LEARNERS, Learner
from metarl.learning.trust_region import TrustRegionConfig
from metarl.rollouts.rollout import Rollout
from metarl.sampling.sampler import Sampler
from tests.pretend import MODULE, NAME, ROOT, PretendDevice, PretendTensor
from tests.runs import SELF_CONTAINED

TASKS, EPISODES, HORIZON = 2, 2, 3
# What makes an update small, of the learners that have it.
SMALL = {
    "hidden_sizes": (4,),
    "discounts": (0.5, 0.9),
    "policy_sizes": (4,),
    "hidden_size": 4,
    "encoder_size": 4,
    "decoder_sizes": (4,),
    "epochs": 2,
    "minibatches": 1,
    "model_updates": 2,
    "metric_updates": 2,
    "model_trials": 4,
    "trials_per_update": 4,
    "updates_per_iteration": 2,
    "batch_size": 4,
    "context_size": 4,
    "layers": 1,
    "window": 3,
    "heads": 1,
    "slots": 3,
    "slot_size": 2,
    "trust_region": TrustRegionConfig(cg_iterations=2),
}
# RL² reads whole trials, Hyper-RL² chunks.
OF_ONE = {"hyper-rl2": {"bptt_steps": 3}}
# How often an update waits for the device: once to read its metrics, and where numbers decide on shapes or on what is
# tried next. A trial's learner asks for the length of the longest trial, and where it trains on chunks, for those that
# have steps; MAML-TRPO for the steps of a task, together with its metrics, and for candidates of the line search;
# VariBAD, recurrent SAC and AMAGO for the numbers of the past trials that they drew.
WAITS = {
    "maml-trpo": 2,
    "maml-ppo": 1,
    "maml-vpg": 1,
    "reptile": 1,
    "rl2": 2,
    "hyper-rl2": 3,
    "varibad": 3,
    "metric": 2,
    "pearl": 2,
    "recurrent-sac": 3,
    "amago": 3,
    "focal": 2,
    "dpt": 2,
    "algorithm-distillation": 2,
    "random": 0,
    "optimal": 0,
    "bandit-rule": 0,
}
SB3 = ["ppo", "a2c", "dqn", "sac"]
KINDS = ["sparse-point", "key-and-door"]
# Each learner in both, but RL² with another memory than its own in one: a memory sees nothing of actions.
LEARNED = [(name, kind) for name in WAITS for kind in KINDS]
# But for language models: transformers does not fill all buffers of a model that it reads inside the pretend device.
REMEMBERING = [f"rl2 {memory}" for memory in MEMORIES if memory != "language-model"]
LEARNED += [(name, "sparse-point") for name in REMEMBERING if name != "rl2 gru"]
TORCH = [name for name in FAMILIES if not issubclass(FAMILIES[name], EnvironmentFamily | LocomotionFamily)]


def small(name: str, family: TaskFamily, device: str) -> Learner:
    """Make a learner, by its name and perhaps its memory's."""
    name, _, memory = name.partition(" ")
    kind = LEARNERS[name]
    fields = kind.config_class.__dataclass_fields__  # type: ignore[attr-defined]
    given = {key: value for key, value in SMALL.items() if key in fields}
    settings = kind.config_class(**given, **OF_ONE.get(name, {}), **({"memory": memory} if memory else {}))
    return kind(kind.view(family, settings), settings, 0, torch.device(device))


def fits(name: str, family: TaskFamily) -> bool:
    """Return whether a learner acts in a family."""
    if isinstance(family.action_space, Discrete):
        return name not in ("pearl", "focal", "sac")
    return name not in ("dqn", "bandit-rule")


class Iteration:
    """One iteration of training: its rollouts and metrics, and what its parts waited for."""

    def __init__(self, name: str, family: TaskFamily, there: PretendDevice | None = None) -> None:
        device, waits = ("cpu", []) if there is None else (NAME, there.waits)
        learner = small(name, family, device)
        settings = getattr(learner, "config", None)
        sampler = Sampler(type(learner).view(family, settings), device)
        session = sampler.session(learner, TaskSplit(family).train_tasks(TASKS, 0), EPISODES)
        self.rollouts: list[Rollout] = []
        self.collections: list[list[str]] = []
        for step in range(learner.inner_steps + 1):
            if step:
                session.adapt()
            waits.clear()
            self.rollouts.append(sampler.run(session, step))
            self.collections.append(list(waits))
        waits.clear()
        self.metrics = learner.update(self.rollouts)
        self.update = list(waits)


def on_both(name: str, family: TaskFamily) -> tuple[Iteration, Iteration]:
    """Run an iteration on the device and on the CPU, and compare them number by number."""
    with PretendDevice() as there:
        ours = Iteration(name, family, there)
        rollouts = [rollout.to("cpu") for rollout in ours.rollouts]
    theirs = Iteration(name, family)
    for one, other in zip(rollouts, theirs.rollouts, strict=True):
        steps = other.valid.shape[2]
        for quantity in ("observations", "rewards", "valid", "log_probs"):
            torch.testing.assert_close(getattr(one, quantity)[:, :, :steps], getattr(other, quantity))
    assert ours.metrics == pytest.approx(theirs.metrics, rel=1e-3, abs=1e-5)
    return ours, theirs


def test_every_learner_is_listed_here() -> None:
    assert {*WAITS, *SB3} == set(SELF_CONTAINED)


@pytest.mark.parametrize(("name", "kind"), LEARNED)
def test_an_iteration_is_that_of_the_cpu_and_waits_where_it_must(name: str, kind: str) -> None:
    family = make_family(kind, horizon=HORIZON)
    if not fits(name, family) or (name in ("optimal", "dpt") and kind == "key-and-door"):
        pytest.skip(f"{name} does not act there")
    ours, _ = on_both(name, family)
    # One look at whether all is well, when the collection is done.
    assert [len(waits) for waits in ours.collections] == [1] * len(ours.collections), ours.collections
    refused = 3 if ours.metrics.get("accepted") == 0 else 0  # looks at 1, 2, 4 and 8 candidates
    assert len(ours.update) == WAITS[name.partition(" ")[0]] + refused, ours.update


@pytest.mark.parametrize("name", [name for name in TORCH if name not in KINDS])
def test_every_family_goes_through_an_iteration(name: str) -> None:
    family = make_family(name)
    ours, _ = on_both("maml-vpg", family if family.horizon == 1 else make_family(name, horizon=HORIZON))
    assert [len(waits) for waits in ours.collections] == [1, 1], ours.collections


@pytest.mark.parametrize("name", SB3)
def test_baselines_of_sb3_learn_on_the_device(name: str) -> None:
    # In NumPy, so that each of their steps waits; and by other sums, so that they drift from the CPU's.
    with PretendDevice() as there:
        done = Iteration(name, make_family("sparse-point" if name == "sac" else "gridnavi", horizon=HORIZON), there)
    assert done.metrics["learned_env_steps"] == TASKS * EPISODES * HORIZON


def test_worlds_of_gymnasiums_environments_move_to_the_device_and_back() -> None:
    on_both("maml-vpg", make_family("cartpole-params", horizon=HORIZON))


def recorded(
    name: str, family: TaskFamily, captured: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Rollout], int]:
    """Collect before and after an update, and once more; return the rollouts, and how many graphs were recorded."""
    graphs = []
    with PretendDevice() as there:

        def record(*given: Any) -> Any:
            graphs.append(there.record(*given))
            return graphs[-1]

        monkeypatch.setitem(RECORDERS, NAME, record)
        learner = small(name, family, NAME)
        settings = getattr(learner, "config", None)
        sampler = Sampler(type(learner).view(family, settings), NAME, captured)
        rollouts = []
        for iteration in range(2):
            session = sampler.session(learner, TaskSplit(family).train_tasks(TASKS, iteration), EPISODES)
            for step in range(learner.inner_steps + 1):
                if step:
                    session.adapt()
                there.waits.clear()
                rollouts.append(sampler.run(session, 10 * iteration + step))
                assert len(there.waits) == 1
            if iteration == 0:
                learner.update(rollouts)
        return [rollout.to("cpu") for rollout in rollouts], len(graphs)


ACTING = [
    "maml-vpg",
    "reptile",
    "hyper-rl2",
    "varibad",
    "metric",
    "pearl",
    "recurrent-sac",
    "amago",
    "dpt",
    "random",
    *REMEMBERING,
]
# Each learner in a family, one in each kind of observations, and each family with the least to compute beside it.
GRAPHS = [(name, "sparse-point") for name in ACTING]
GRAPHS += [("rl2 gru", "tabular-mdp"), ("rl2 gru", "gridnavi-image"), ("bandit-rule", "bandit")]
GRAPHS += [("random", kind) for kind in TORCH if kind != "sparse-point"]


@pytest.mark.parametrize(("name", "kind"), GRAPHS)
def test_a_graph_that_is_recorded_once_gives_the_rollouts_of_eager_steps(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = make_family(kind)
    family = family if family.horizon == 1 else make_family(kind, horizon=HORIZON)
    (eager, none), (replayed, graphs) = (recorded(name, family, captured, monkeypatch) for captured in (False, True))
    assert (none, graphs) == (0, 1)
    for one, other in zip(replayed, eager, strict=True):
        for quantity in ("observations", "actions", "rewards", "valid", "log_probs", "final_observations"):
            torch.testing.assert_close(getattr(one, quantity), getattr(other, quantity), rtol=0, atol=0)


class PretendSim:
    """MuJoCo Warp's simulations on its CPU device, as the engine of the device: torch sees their memory as its own."""

    def __init__(self, there: PretendDevice, model: Any, num_sims: int, fields: Any) -> None:
        from metarl.envs.simulation.warp import WarpSim

        self._there, self._sim = there, WarpSim(model, num_sims, torch.device("cpu"), fields, captured=False)
        self.qpos, self.qvel, self.ctrl = (
            PretendTensor(each) for each in (self._sim.qpos, self._sim.qvel, self._sim.ctrl)
        )
        self.centre_of_mass = PretendTensor(self._sim.centre_of_mass)

    def step(self, substeps: int, active: torch.Tensor | None = None) -> None:
        self._there.outside(lambda: self._sim.step(substeps))

    def restart(self, mask: Any, qpos: Any, qvel: Any) -> None:
        self._there.outside(lambda: self._sim.restart(mask.content, qpos.content, qvel.content))

    def set_fields(self, mask: Any, fields: Any) -> None:
        given = {name: value.content for name, value in fields.items()}
        self._there.outside(lambda: self._sim.set_fields(mask.content, given))

    def unstable(self) -> torch.Tensor:
        return PretendTensor(self._sim._unstable).clone()

    def check(self) -> None:
        self._sim.check()


@pytest.mark.parametrize("kind", ["half-cheetah-vel", "hopper-rand-params"])
def test_robots_of_mujoco_warp_are_in_the_graph(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco_warp", reason="needs the extra gpu")
    monkeypatch.setattr(batched, "check_engine", lambda device: None)
    monkeypatch.setattr(
        batched, "make_simulation", lambda model, count, device, fields: PretendSim(MODULE.active, model, count, fields)
    )
    family = make_family(kind, horizon=HORIZON)
    (eager, none), (replayed, graphs) = (
        recorded("random", family, captured, monkeypatch) for captured in (False, True)
    )
    assert (none, graphs) == (0, 1)
    for one, other in zip(replayed, eager, strict=True):
        for quantity in ("observations", "actions", "rewards", "valid", "final_observations"):
            torch.testing.assert_close(getattr(one, quantity), getattr(other, quantity), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["maml-trpo", "rl2"])
def test_what_measures_learners_on_a_gpu_runs(name: str) -> None:
    program = runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))
    found = program["measure"](program["cases"](tiny=True)[name], torch.device("cpu"))
    assert found["env steps"] == 2 * 2 * 2 * 5
    assert found["iteration"] == pytest.approx(sum(found[part] for part in ("sampling", "adaptation", "update")))
    assert len(program["cases"](tiny=False)) == 4
