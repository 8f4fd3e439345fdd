"""Adaptation over HTTP: drives a family's Gymnasium environments by ``metarl serve``, as ``metarl evaluate`` does.

    metarl serve runs/cheetah &
    python experiments/tools/over_http.py runs/cheetah

The first held-out task is acted in, episodes side by side, before adaptation and after each adaptation step, from the
same seeds as in an evaluation of that task. So the returns are the same, to the last bit.
"""

import sys
from dataclasses import dataclass

import torch
from gymnasium.vector import AutoresetMode

from metarl.client import Client, RemoteTask
from metarl.evaluation.evaluate import evaluate_learner, load_run
from metarl.experiments.commands.arguments import RunName
from metarl.experiments.commands.parsing import guarded, parse
from metarl.seeding import derive_seed
from metarl.validation import require_count, require_not_negative
from metarl.worlds.vector_env import TaskVectorEnv


@dataclass(frozen=True)
class Options:
    """Adapt to a held-out task over HTTP, and compare the returns with those of metarl evaluate."""

    run: RunName
    """Directory of the run that is served."""
    url: str = "http://127.0.0.1:8000"
    """Where it is served."""
    token: str | None = None
    """The server's bearer token, if it has one."""
    steps: int = 3
    """Adaptation steps."""
    episodes: int | None = None
    """Episodes before each step and after the last one; by default as in the training run."""
    seed: int = 0
    """Seed of environments and actions."""

    def __post_init__(self) -> None:
        require_not_negative(self, "steps")
        if self.episodes is not None:
            require_count("episodes", self.episodes)


def round_over_http(task: RemoteTask, env: TaskVectorEnv, seed: int) -> float:
    """Run a round of the sampler over HTTP: an episode in every world; return their mean return."""
    observations, _ = env.reset(seed=derive_seed(seed, "environments"))
    actions = task.act(observations, seed=seed)
    while True:
        observations, rewards, terminated, truncated, _ = env.step(torch.as_tensor(actions))
        answer = task.feedback(rewards, terminated, truncated, observations)
        if answer.ended:
            return float(torch.tensor([answer.returns]).mean(1))
        actions = task.act()


def compare(options: Options, client: Client) -> list[tuple[float, float]]:
    """Return the mean returns before adaptation and after each step: over HTTP, and by an evaluation.

    Raises:
        InputError: when the directory is not a run, or the server refuses a request.
        RunError: when the server does not answer.
    """
    config, learner, _ = load_run(options.run)
    family, episodes = config.make_family(), options.episodes or config.run.episodes_per_task
    chosen = config.split().held_out_tasks("test", 1)
    env = TaskVectorEnv(family, episodes, config.run.device, AutoresetMode.DISABLED)
    env.set_tasks(chosen.expand(episodes))
    found = []
    with client.task("the first held-out task", episodes=episodes, adapt_after=episodes) as task:
        for step in range(options.steps + 1):
            found.append(round_over_http(task, env, derive_seed(options.seed, "evaluation", "test", step)))
    torch.set_num_threads(1)  # as in the server, so that sums are rounded alike
    curve = evaluate_learner(config, learner, 1, options.steps, episodes, options.seed)
    return list(zip(found, curve.returns[0].tolist(), strict=True))


def run(options: Options) -> None:
    """Compare, and print the returns."""
    print(f"{'adaptation steps':<20}{'over HTTP':>16}{'evaluation':>16}")
    for step, (remote, local) in enumerate(compare(options, Client(options.url, options.token))):
        print(f"{step:<20}{remote:>16.6f}{local:>16.6f}  {'equal' if remote == local else 'NOT EQUAL'}")


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(parse(Options, "python experiments/tools/over_http.py", sys.argv[1:]))))
