"""``metarl collect``: record episodes on a run's tasks, for off-policy learners."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tensordict import TensorDict

from metarl.devices.choice import resolve_device
from metarl.evaluation.evaluate import load_run
from metarl.experiments.commands.arguments import RunName
from metarl.experiments.commands.parsing import parse
from metarl.families.family import Part
from metarl.families.views import labelled
from metarl.learning.learner import LEARNERS, Learner
from metarl.rollouts.rollout import Rollout
from metarl.run.directory import CheckpointChoice
from metarl.run.recorded import Description, load_recorded, save_recorded, side_by_side
from metarl.sampling.sampler import Sampler
from metarl.seeding import derive_seed
from metarl.validation import require_count, require_counts, require_not_negative

TASKS_PER_SHARD = 20


@dataclass(frozen=True)
class CollectOptions:
    """Record episodes of a run's policy, before and after each adaptation step, in a folder."""

    run: RunName
    """Directory of the run."""
    out: str
    """Folder of the recorded episodes, new or empty."""
    tasks: int = 100
    """Number of tasks; a finite family may have fewer."""
    episodes: int | None = None
    """Episodes per task before each adaptation step and after the last one; by default as in the training run."""
    steps: int | None = None
    """Adaptation steps, which make the episodes of a task a learning history; by default as many as in training."""
    best_actions: bool = False
    """Also record the best action of each step, in families where it is known."""
    part: Part = "train"
    """Part of the split that the tasks are from; training accepts only train."""
    policy: Literal["latest", "best", "random"] = "latest"
    """Policy: the latest checkpoint, the best one on validation tasks, or the random policy."""
    seed: int = 0
    """Seed of environments and actions; the tasks do not depend on it."""
    device: str | None = None
    """Torch device; by default the one the run was trained on."""

    def __post_init__(self) -> None:
        require_counts(self, "tasks")
        if self.episodes is not None:
            require_count("episodes", self.episodes)
        if self.steps is not None:
            require_not_negative(self, "steps")


def run(words: Sequence[str]) -> None:
    """Record the episodes, and print a summary."""
    print(collect(parse(CollectOptions, "metarl collect", words)))


def collect(options: CollectOptions) -> str:
    """Record the episodes, and return a summary.

    Raises:
        InputError: if the directory is not a run, or ``out`` is not empty.
    """
    checkpoint: CheckpointChoice = "best" if options.policy == "best" else "latest"
    config, learner, iteration = load_run(options.run, options.device, checkpoint)
    family, split = config.make_family(), config.split()
    if options.best_actions:
        family = labelled(family, "metarl collect --best-actions works")
    steps = learner.inner_steps if options.steps is None else options.steps
    if options.policy == "random":
        random = LEARNERS["random"]
        learner = random(family, random.config_class(), options.seed, resolve_device(config.run.device))
    made_by = {
        "run": options.run,
        "policy": options.policy,
        "learner": config.learner,
        "iteration": iteration,
        "preset": config.preset,
        "split_seed": config.run.split_seed,
        "seed": options.seed,
    }
    known = {"part": options.part, "split_hash": split.fingerprint(), "made_by": made_by, "rounds": steps + 1}
    tasks = split.held_out_tasks(options.part, options.tasks)
    episodes = config.run.episodes_per_task if options.episodes is None else options.episodes
    shards = _shards(Sampler(family, config.run.device), learner, tasks, (steps, episodes), options)
    save_recorded(options.out, Description.of(family, **known), shards)
    rollout = load_recorded(options.out).rollout
    episodes = rollout.rewards.shape[1]
    return (
        f"{rollout.num_tasks} {options.part} tasks, {episodes} episodes of each, {rollout.env_steps:,} env steps; mean "
        f"return {rollout.episode_returns().mean():.2f}\n{options.out}"
    )


def _shards(
    sampler: Sampler, learner: Learner, tasks: TensorDict, counts: tuple[int, int], options: CollectOptions
) -> Iterator[Rollout]:
    """Sample the episodes, one group of tasks after another; the counts are those of steps and episodes."""
    steps, episodes = counts
    for number, group in enumerate(tasks.split(TASKS_PER_SHARD)):
        state = learner.begin(len(group))
        rollouts: list[Rollout] = []
        for step in range(steps + 1):
            if step > 0:
                state = learner.adapt(state, rollouts[-1])
            seed = derive_seed(options.seed, "recorded", options.part, number, step)
            rollouts.append(sampler.collect(learner, state, group, episodes, seed))
        yield side_by_side(rollouts)
