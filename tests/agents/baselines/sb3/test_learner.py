"""What the learners on Stable-Baselines3 do in common: the three variants, the accounts of steps, the seeds."""

from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict

import metarl  # noqa: F401 (registers families and learners)
from metarl.agents.baselines.sb3.learner import Sb3Learner
from metarl.agents.baselines.sb3.models import Models, knowledge
from metarl.agents.baselines.sb3.vec_env import Sb3VecEnv
from metarl.errors import InputError, RunError
from metarl.families.family import make_family
from metarl.families.views import InformedFamily
from metarl.learning.learner import LEARNERS
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from tests.agents.baselines.sb3.test_models import numbers
from tests.fakes import EchoFamily

# For each learner, a small family that it takes.
HOME = {"dqn": "gridnavi", "ppo": "bandit", "a2c": "navigation-2d", "sac": "navigation-2d"}
# Settings of single learners that only cost time here.
OFF_POLICY = {"steps_per_gradient": 4, "buffer_size": 1000}
LITTLE_WORK = {"dqn": OFF_POLICY, "ppo": {"epochs": 2}, "a2c": {}, "sac": OFF_POLICY}
CPU = torch.device("cpu")
every_learner = pytest.mark.parametrize("name", HOME)
every_variant = pytest.mark.parametrize("variant", ["scratch", "pretrained", "oracle"])


def make(name: str, variant: str = "pretrained", family: str | None = None, seed: int = 1, **settings: Any) -> Any:
    """Return a learner with small networks, and a sampler of what it meets, with episodes of 5 steps or fewer."""
    chosen = LEARNERS[name].config_class(variant=variant, **{"hidden_sizes": (8,), **LITTLE_WORK[name], **settings})
    family = family or HOME[name]
    config = TrainConfig(name, family, RunConfig(seed=seed, horizon=1 if family == "bandit" else 5), chosen)
    return config.make_learner(), Sampler(config.make_family())


def collect(learner: Sb3Learner, sampler: Sampler, state: Models, episodes: int = 8, tasks: Any = 2) -> Rollout:
    if isinstance(tasks, int):
        tasks = sampler.family.sample_tasks(tasks, torch.Generator().manual_seed(0))
    return sampler.collect(learner, state, tasks, episodes, seed=3)


def known(state: Models) -> list[list[float]]:
    return [numbers(knowledge(model)) for model in state.models]


@every_learner
@every_variant
def test_it_learns_in_training_unless_it_starts_from_scratch(name: str, variant: str) -> None:
    learner, sampler = make(name, variant)
    before = numbers(knowledge(learner.model))
    rollout = collect(learner, sampler, learner.begin(2))
    metrics = learner.update([rollout])
    learned = numbers(knowledge(learner.model)) != before
    assert learned == (variant != "scratch")
    assert learner.from_scratch(learner.config) == (not learned)
    assert (metrics["learned_env_steps"] > 0) == learned


@every_learner
def test_training_learns_from_the_steps_that_are_counted(name: str) -> None:
    learner, sampler = make(name)
    counted = 0
    for _ in range(3):
        rollouts = [collect(learner, sampler, learner.begin(2), episodes=7) for _ in range(2)]
        counted += sum(rollout.env_steps for rollout in rollouts)
        metrics = learner.update(rollouts)
        waiting = learner.state_dict()["waiting"]
        assert metrics["learned_env_steps"] + waiting == counted
        # At most a round of PPO's or A2C's steps is left.
        assert 0 <= waiting < 2 * 4 * 5


@every_learner
@pytest.mark.parametrize("variant", ["scratch", "pretrained"])
def test_each_task_learns_from_its_own_counted_steps(name: str, variant: str) -> None:
    learner, sampler = make(name, variant)
    learner.update([collect(learner, sampler, learner.begin(2))])
    state, granted = learner.begin(3), np.zeros(3)
    for _ in range(2):
        rollout = collect(learner, sampler, state, episodes=7, tasks=3)
        state = learner.adapt(state, rollout)
        granted += rollout.valid.sum((1, 2)).numpy()
        taken = np.array([model.num_timesteps for model in state.models])
        assert (taken + np.array(state.waiting)).tolist() == granted.tolist()
        assert (taken > 0).all()


def test_steps_that_fill_no_round_wait() -> None:
    # Three worlds step together, so that two of five steps are left.
    learner, sampler = make("dqn", "scratch", "bandit", worlds=3)
    state, taken = learner.begin(2), []
    for _ in range(4):
        state = learner.adapt(state, collect(learner, sampler, state, episodes=5))
        taken.append((state.models[0].num_timesteps, state.waiting[0]))
    assert taken == [(3, 2), (9, 1), (15, 0), (18, 2)]


@every_learner
@pytest.mark.parametrize("variant", ["scratch", "pretrained"])
def test_adaptation_leaves_the_old_state_and_the_learner_alone(name: str, variant: str) -> None:
    learner, sampler = make(name, variant)
    start, trained = learner.begin(2), numbers(learner.state_dict()["model"])
    once = learner.adapt(start, collect(learner, sampler, start))
    before = known(start), known(once)
    twice = learner.adapt(once, collect(learner, sampler, once))
    assert (known(start), known(once)) == before
    assert known(twice) != known(once)
    assert numbers(learner.state_dict()["model"]) == trained


@every_learner
def test_adaptation_can_be_had_again(name: str) -> None:
    learner, sampler = make(name)
    start = learner.begin(2)
    rollout = collect(learner, sampler, start)
    assert known(learner.adapt(start, rollout)) == known(learner.adapt(start, rollout))


@every_learner
def test_from_scratch_each_task_has_a_model_of_its_own(name: str) -> None:
    learner, sampler = make(name, "scratch")
    first = known(learner.begin(2))
    learner.update([collect(learner, sampler, learner.begin(2))])
    assert known(learner.begin(2)) == first
    assert first[0] != first[1]
    assert known(make(name, "scratch", seed=2)[0].begin(2)) != first


@every_learner
def test_a_pretrained_model_is_where_new_tasks_start(name: str) -> None:
    learner, sampler = make(name)
    rollout = collect(learner, sampler, learner.begin(2))
    learner.update([rollout])
    assert learner.begin(4).models == [learner.model]
    adapted = learner.adapt(learner.begin(2), rollout)
    assert len({tuple(numbers) for numbers in [*known(adapted), numbers(knowledge(learner.model))]}) == 3


def test_a_copy_forgets_the_transitions_of_the_training_tasks_and_keeps_those_of_its_own() -> None:
    learner, sampler = make("dqn")
    learner.update([collect(learner, sampler, learner.begin(2))])
    state = learner.begin(2)
    for stored in (40, 80):
        state = learner.adapt(state, collect(learner, sampler, state))
        assert [model.replay_buffer.size() * model.n_envs for model in state.models] == [stored, stored]
        goals = [knowledge(model)["transitions"]["rewards"] for model in state.models]
        assert [len(rewards) for rewards in goals] == [stored, stored]


@every_learner
def test_an_oracle_does_not_adapt(name: str) -> None:
    learner, sampler = make(name, "oracle")
    state = learner.begin(2)
    assert learner.adapt(state, collect(learner, sampler, state)) is state


def test_an_oracle_meets_the_family_that_reveals_the_task() -> None:
    configs = [
        TrainConfig("dqn", "gridnavi", settings=LEARNERS["dqn"].config_class(variant=variant))
        for variant in ("oracle", "scratch")
    ]
    seeing, blind = (config.make_family() for config in configs)
    assert seeing == InformedFamily(blind)
    # So runs of all variants are compared on the same tasks.
    assert configs[0].split().fingerprint() == configs[1].split().fingerprint()
    assert configs[0].make_learner().model.observation_space == seeing.observation_space  # type: ignore[attr-defined]


def test_an_oracle_on_a_family_that_does_not_tell_is_refused() -> None:
    config = LEARNERS["dqn"].config_class(variant="oracle")
    with pytest.raises(InputError, match=r"needs the family that Dqn\.view returns"):
        LEARNERS["dqn"](make_family("gridnavi"), config, 1, CPU)


@every_learner
@every_variant
def test_the_global_streams_are_left_alone(name: str, variant: str) -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    learner, sampler = make(name, variant)
    rollout = collect(learner, sampler, learner.begin(2))
    learner.update([rollout])
    learner.adapt(learner.begin(2), rollout)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # type: ignore[index]  # noqa: NPY002


@every_learner
def test_what_others_draw_does_not_matter(name: str) -> None:
    results = []
    for disturbed in (False, True):
        learner, sampler = make(name)
        rollout = collect(learner, sampler, learner.begin(2))
        if disturbed:
            torch.rand(5)
            np.random.rand(5)  # noqa: NPY002
        metrics = learner.update([rollout])
        results.append((metrics, numbers(learner.state_dict()), known(learner.adapt(learner.begin(2), rollout))))
    assert results[0] == results[1]


@every_learner
def test_an_update_that_is_not_finite_is_refused_and_changes_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, sampler = make(name)
    rollout, step = collect(learner, sampler, learner.begin(2)), Sb3VecEnv.step_wait

    def poisoned(env: Sb3VecEnv) -> Any:
        observations, rewards, *rest = step(env)
        return observations, np.full_like(rewards, np.nan), *rest

    learner.update([rollout])
    before = numbers(learner.state_dict())
    monkeypatch.setattr(Sb3VecEnv, "step_wait", poisoned)
    with pytest.raises(RunError, match=f"not finite .* in the parameters of SB3's {name}"):
        learner.update([rollout])
    assert numbers(learner.state_dict()) == before
    monkeypatch.undo()
    learner.update([rollout])
    assert np.isfinite(numbers(learner.state_dict())).all()


@pytest.mark.parametrize(
    ("name", "family", "complaint"),
    [
        ("dqn", "navigation-2d", "dqn needs Discrete actions, but those of navigation-2d are Box(-0.1, 0.1"),
        ("sac", "gridnavi", "sac needs bounded Box actions, but those of gridnavi are Discrete(5); use "),
    ],
)
def test_a_bad_pairing_is_one_clear_line(name: str, family: str, complaint: str) -> None:
    with pytest.raises(InputError) as refusal:
        TrainConfig(name, family).make_learner()
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["ppo", "a2c", "sac"])
def test_actions_without_bounds_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"bounded Box.*, but those of echo are .*; use rl2"):
        LEARNERS[name](EchoFamily(), LEARNERS[name].config_class(), 1, CPU)


@pytest.mark.parametrize(
    ("name", "settings", "complaint"),
    [
        ("dqn", {"variant": "magic"}, "variant must be one of scratch, pretrained, oracle, not 'magic'"),
        ("dqn", {"worlds": 0}, "worlds must be at least 1"),
        ("dqn", {"exploration_final_eps": 2.0}, r"exploration_final_eps must lie in \[0, 1\]"),
        ("dqn", {"exploration_steps": 0}, "exploration_steps must be at least 1"),
        ("sac", {"steps_per_gradient": 0}, "steps_per_gradient must be at least 1"),
        ("sac", {"learning_starts": -1}, "learning_starts must be 0 or more"),
        ("sac", {"tau": -0.1}, "tau must lie in"),
        ("ppo", {"batch_size": 1}, "batch_size must be at least 2"),
        ("ppo", {"clip_range": 0.0}, "clip_range must be positive"),
        ("a2c", {"entropy_weight": -1.0}, "entropy_weight must be 0 or more"),
        ("a2c", {"learning_rate": 0.0}, "learning_rate must be positive"),
        ("a2c", {"hidden_sizes": (0,)}, "every hidden layer needs at least one unit"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        LEARNERS[name].config_class(**settings)


def best_arms(arms: list[int]) -> TensorDict:
    """Return bandits ``[N]`` of 5 arms one of which always gives a reward and the others never."""
    return TensorDict({"probabilities": torch.eye(5)[arms]}, [len(arms)])


@pytest.mark.parametrize("name", ["dqn", "ppo", "a2c"])
def test_from_scratch_it_finds_the_arm_that_pays(name: str) -> None:
    learner, sampler = (
        make(name, "scratch", "bandit", exploration_steps=50, steps_per_gradient=1)
        if name == "dqn"
        else make(name, "scratch", "bandit", learning_rate=0.03, round_steps=5)
    )
    tasks = best_arms([0, 2, 4])
    state = learner.begin(3)
    for _ in range(5):
        state = learner.adapt(state, sampler.collect(learner, state, tasks, 50, seed=3))
    after = sampler.collect(learner, state, tasks, 1, seed=3, deterministic=True)
    assert after.actions.flatten().tolist() == [0, 2, 4]


def test_an_oracle_pulls_the_revealed_arm() -> None:
    learner, sampler = make(
        "dqn", "oracle", "bandit", hidden_sizes=(32,), shared_exploration_steps=500, steps_per_gradient=2
    )
    for iteration in range(6):
        tasks = best_arms([(iteration + task) % 5 for task in range(10)])
        learner.update([sampler.collect(learner, learner.begin(10), tasks, 20, seed=iteration)])
    after = sampler.collect(learner, learner.begin(5), best_arms([4, 3, 2, 1, 0]), 1, seed=0, deterministic=True)
    assert after.actions.flatten().tolist() == [4, 3, 2, 1, 0]
