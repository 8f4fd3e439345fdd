"""The learner: transcripts as memory, probabilities of names, runs and evaluations as for any other learner."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metarl.agents.language.language import Language, LanguageConfig
from metarl.errors import InputError
from metarl.evaluation.evaluate import evaluate, load_run
from metarl.experiments.commands.main import main
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from metarl.sampling.session import Session
from tests.agents.language.models import make_model

pytest.importorskip("transformers")
RUN = RunConfig(iterations=1, tasks_per_batch=1, episodes_per_task=2, track="disabled")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("model"))


def config(model: str, family: str = "bandit", **settings: object) -> TrainConfig:
    run = RUN if family == "bandit" else replace(RUN, horizon=4)
    return TrainConfig("language", family, run, LanguageConfig(model=model, **settings))  # type: ignore[arg-type]


def language(model: str, family: str = "bandit", **settings: object) -> tuple[Language, Sampler, Session]:
    chosen = config(model, family, **settings)
    learner, sampler = chosen.make_learner(), Sampler(chosen.make_family())
    assert isinstance(learner, Language)
    return learner, sampler, sampler.session(learner, chosen.split().held_out_tasks("test", 2), 3)


def test_the_transcript_of_a_bandit(model: str) -> None:
    learner, _, _ = language(model, episodes_per_trial=3)
    state = learner.begin(1)
    for arm, reward in ((2, 1.0), (4, 0.0)):
        working = learner.open(state, 1, torch.Generator())
        distribution = learner.action_distribution(working, torch.zeros(1, 1, 1))
        assert distribution.logits.exp().sum().item() == pytest.approx(1)
        ended = torch.ones(1, 1, dtype=torch.bool)
        learner.observe(working, torch.tensor([[arm]]), torch.tensor([[reward]]), ended)
        state = learner.close(working, None)  # type: ignore[arg-type]
    assert "".join(piece for episode in state.of(0, 0) for piece in episode) == (
        "\nEpisode 1.\nAction: 2\nReward: 1\nThe episode is over. Its return was 1.\n"
        "\nEpisode 2.\nAction: 4\nReward: 0\nThe episode is over. Its return was 0.\n"
    )


@pytest.mark.parametrize("tokens", [0, 4])
@pytest.mark.parametrize("family", ["bandit", "key-and-door"])
def test_recorded_episodes_are_remembered_as_its_own(family: str, tokens: int, model: str) -> None:
    learner, sampler, session = language(model, family, reflection_tokens=tokens)
    state = learner.begin(2)
    for number in range(2):
        rollout = sampler.run(session, number)
        session.adapt()
        state = learner.adapt(state, rollout)
    assert session.state == state
    assert ("What I learned" in str(state)) is (tokens > 0)


def test_it_acts_by_the_probabilities_of_names(model: str) -> None:
    learner, sampler, session = language(model, "gridnavi", temperature=2.0)
    rollout = sampler.run(session, 0)
    assert rollout.distribution is not None
    (logits,) = rollout.distribution.tensors()
    alone = learner.open(learner.begin(1), 1, torch.Generator())
    again = learner.action_distribution(alone, rollout.observations[1:2, 2:3, 0])
    torch.testing.assert_close(logits[1, 2, 0], again.logits[0, 0], atol=1e-4, rtol=1e-4)
    hot, _, _ = language(model, "gridnavi")
    working = hot.open(hot.begin(1), 1, torch.Generator())
    sharp = hot.action_distribution(working, rollout.observations[1:2, 2:3, 0]).logits[0, 0]
    torch.testing.assert_close(again.logits[0, 0], (sharp / 2).log_softmax(-1), atol=1e-4, rtol=1e-4)


def test_a_run_is_trained_without_an_update_and_evaluated(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "run")
    words = ["--model", model, "--iterations", "1", "--tasks-per-batch", "1", "--episodes-per-task", "1"]
    main(["train", "language", "bandit", *words, "--track", "disabled", "--out", out])
    main(["evaluate", out, "--tasks", "3", "--episodes", "2"])
    assert "read_tokens" in capsys.readouterr().out
    curve = evaluate(out, 3, episodes=2)
    assert curve.returns.shape == (3, 2)
    assert curve.of_trials
    assert curve.notes["read_tokens"] > 0
    make_model(Path(model), seed=5)
    with pytest.raises(InputError, match="the run was made with another model than"):
        load_run(out)
    make_model(Path(model))
    load_run(out)


REFUSED = [
    ("navigation-2d", {}, r"families that describe themselves in words \(bandit, .*\); use rl2 in others"),
    ("gridnavi-image", {}, "families that describe themselves in words"),
    ("bandit", {"model": ""}, "language needs --model, a FOLDER"),
    ("bandit", {"url": "localhost:80"}, "--url localhost:80 must start with http:// or https://"),
]


@pytest.mark.parametrize(("family", "settings", "line"), REFUSED)
def test_what_it_cannot_do_is_refused(family: str, settings: dict[str, str], line: str, model: str) -> None:
    with pytest.raises(InputError, match=line):
        TrainConfig("language", family, RUN, LanguageConfig(**{"model": model, **settings})).make_learner()


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"precision": "int4"}, {"reflection_tokens": -1}])
def test_bad_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        LanguageConfig(**settings)  # type: ignore[arg-type]


def test_a_trial_goes_on_with_as_many_episodes(model: str) -> None:
    learner, sampler, session = language(model)
    state = learner.adapt(learner.begin(2), sampler.run(session, 0))
    with pytest.raises(InputError, match="3 trials of each task need 3 episodes, not 2"):
        learner.open(state, 2, torch.Generator())
