"""An exported policy acts as its session does, step by step, with the memory that it returns."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.in_context.rl2 import Rl2, Rl2Config
from metarl.errors import InputError
from metarl.evaluation.export import export_policy
from metarl.families.family import make_family
from metarl.learning.learner import LEARNERS
from metarl.sampling.session import Session
from metarl.worlds.numpy_env import TaskEnv
from tests.metarl.sampling.test_session import make

CPU = torch.device("cpu")
MEMORIES = ("gru", "lstm", "min-gru", "transformer", "external", "set", "splagger")
EXPORTED = [name for name, learner in LEARNERS.items() if learner.capturable and not learner.baseline]
SOURCES = EXPORTED + [f"rl2 {name}" for name in MEMORIES[1:]]
# A memory that belongs to the actor, and one that is kept for an episode.
QUICK = ("recurrent-sac", "metric")
# A policy, memories of a GRU, of ring buffers and of slots, and a belief.
CONVERTED = ("maml-trpo", "rl2", "rl2 transformer", "rl2 external", "pearl")


def session_of(source: str) -> tuple[Session, TaskEnv]:
    """Return a session of a learner, or of RL² with one of the memories, and an environment."""
    name, _, memory = source.partition(" ")
    learner, family, tasks = make(name)
    if memory:
        learner = Rl2(family, Rl2Config(memory=memory, hidden_size=8, layers=1, window=4, slots=4, slot_size=4), 1, CPU)
    env = TaskEnv(family, tasks)
    return Session(learner, env, seed=3), env


def exported_torch(path: Path) -> Any:
    """Return a function of the inputs of a program of torch.export, by name."""
    files = {"inputs.txt": "", "outputs.txt": ""}
    program = torch.export.load(path, extra_files=files).module()
    inputs, outputs = (str(text).split("\n") for text in files.values())

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found: tuple[Tensor, ...] = program(*(torch.as_tensor(feed[name]) for name in inputs))
        return dict(zip(outputs, [tensor.detach().numpy() for tensor in found], strict=True))

    return run


def exported_onnx(path: Path) -> Any:
    """Return a function of the inputs of an ONNX model, by name."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs, outputs = ([value.name for value in values] for values in (model.get_inputs(), model.get_outputs()))

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(outputs, model.run(None, {name: feed[name] for name in inputs}), strict=True))

    return run


def act_alike(session: Session, env: TaskEnv, path: Path, load: Any) -> None:
    """Run two episodes of a trial with the session; compare each action with the program's."""
    memory = export_policy(session, path)
    run = load(path)
    for episode in range(2):
        observation, _ = env.reset(seed=episode)
        session.open(deterministic=True)
        if "trial.starts" in memory:
            memory["trial.starts"][:] = 1
        while not session.ended:
            found = run({"observation": observation[None], **memory})
            action = session.act(observation)
            np.testing.assert_allclose(found["action"][0], action, atol=1e-5)
            observation, reward, terminated, truncated, _ = env.step(action)
            session.observe(observation, reward, terminated, truncated)
            memory = {name.removeprefix("next."): value.copy() for name, value in found.items() if "next." in name}
            if memory:
                memory["trial.rewards"][:] = reward
        if memory:
            session.adapt()  # a memory goes on; a policy is the one that was exported


@pytest.mark.parametrize(
    "source", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SOURCES]
)
def test_a_program_of_torch_acts_as_the_session(source: str, tmp_path: Path) -> None:
    act_alike(*session_of(source), tmp_path / "policy.pt2", exported_torch)


@pytest.mark.parametrize("source", CONVERTED)
def test_an_onnx_model_acts_as_the_session(source: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    act_alike(*session_of(source), tmp_path / "policy.onnx", exported_onnx)


def test_it_is_the_adapted_policy_that_is_written(tmp_path: Path) -> None:
    session, env = session_of("maml-trpo")
    export_policy(session, tmp_path / "before.pt2")
    observation, _ = env.reset(seed=0)
    session.open()
    while not session.ended:
        observation, reward, terminated, truncated, _ = env.step(session.act(observation))
        session.observe(observation, reward, terminated, truncated)
    session.adapt()
    act_alike(session, env, tmp_path / "after.pt2", exported_torch)
    seen = {"observation": observation[None]}
    before, after = (exported_torch(tmp_path / f"{name}.pt2")(seen)["mean"] for name in ("before", "after"))
    assert np.abs(before - after).max() > 1e-4


def test_several_rows_share_a_program(tmp_path: Path) -> None:
    learner, family, tasks = make("rl2")
    memory = export_policy(Session(learner, family, tasks, episodes=3), tmp_path / "rows.pt2")
    feed = {"observation": np.zeros((3, *(family.observation_space.shape or ())), np.float32), **memory}
    assert exported_torch(tmp_path / "rows.pt2")(feed)["action"].shape == (3, 2)


def test_discrete_actions_are_numbers(tmp_path: Path) -> None:
    family = make_family("gridnavi", horizon=3)
    session = Session(Rl2(family, replace(Rl2Config(), hidden_size=8), 1, CPU), family, 1)
    memory = export_policy(session, tmp_path / "steps.pt2")
    found = exported_torch(tmp_path / "steps.pt2")({"observation": np.zeros((1, 2), np.float32), **memory})
    assert found["action"].dtype == np.int64
    assert found["logits"].shape == (1, 5)


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("maml-trpo", "policy.pt", r"a policy is exported to a .pt2 or .onnx file, not to .*policy.pt"),
        ("dqn", "policy.pt2", "dqn cannot be exported, as it has no policy that is a function of tensors"),
    ],
)
def test_what_cannot_be_exported_is_refused(name: str, file: str, message: str, tmp_path: Path) -> None:
    learner, family, tasks = make(name)
    with pytest.raises(InputError, match=message):
        export_policy(Session(learner, family, tasks), tmp_path / file)
    assert not list(tmp_path.iterdir())


def test_several_tasks_are_refused(tmp_path: Path) -> None:
    learner, family, _ = make("rl2")
    with pytest.raises(InputError, match="exported for one task, but this session has 2"):
        export_policy(Session(learner, family, 2), tmp_path / "policy.pt2")
