"""Cost of a memory's step along a trial, and training speed of RL² on GridNavi.

    python benchmarks/memory_step.py

Acting: the learner reads one observation of every trial and acts, step after step, twice as far as the transformer's
window reaches. The memories alternate, round after round, and the median over the rounds is taken for every
step. "early" and "late" are the medians of the window's first and last eighth, "beyond" of the last eighth of all, each
in microseconds of CPU time (one thread) for all trials together; "late / early" is how much a step grows
along the window.

Training: iterations of RL² (64 recurrent units, trials of 4 episodes) as the training loop runs them, counting all but
checkpoints and files, beside the sampling alone of the same episodes by a random policy. All alternate, and
medians are printed, because the load of the machine changes from minute to minute.

Recurrence: iterations of RL² and VariBAD with their default settings (trials of 4 episodes), and of RL² with one epoch,
alternately: with torch's own layer, with the loops in torch of ``metarl/agents/in_context/memories/recurrence.py``, and
with compiled loops. Times are CPU times of all threads together; with one thread, "env steps per second" is what a
quiet machine reaches.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

import metarl  # noqa: F401 (registers families and learners)
from metarl.agents.in_context.memories import recurrence
from metarl.agents.in_context.memories.gru import Gru
from metarl.agents.in_context.memories.memory import MEMORIES, Memory, last_steps, register_memory
from metarl.agents.in_context.rl2 import Rl2, Rl2Config
from metarl.agents.in_context.trial_ppo import TrialPpoConfig
from metarl.agents.in_context.varibad_config import VariBadConfig
from metarl.devices.runtime import keep_freed_memory, single_torch_thread
from metarl.learning.learner import Learner
from metarl.rollouts.rollout import Rollout
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler
from metarl.seeding import generator

RESULTS = Path(__file__).parent / "results" / "memory_step.json"
FAMILY = "gridnavi"
TASKS = 16
EPISODES = 4
EPOCHS = (1, 2, 4)
KINDS = tuple(MEMORIES)
PARTS = ("acting", "training", "recurrence")


@register_memory
class TorchGru(Gru):
    """The same units, read by torch's layer whatever their number of steps."""

    name = "torch-gru"

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read on in B trials."""
        outputs, _ = self.gru(inputs, memory["hidden"].unsqueeze(0))
        return outputs, {"hidden": last_steps(outputs, lengths)}


@register_memory
class LoopGru(Gru):
    """The same units, read by loops in torch, as where nothing is compiled."""

    name = "loop-gru"

    def forward(self, inputs: Tensor, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Memory]:
        """Read on in B trials."""
        if inputs.shape[1] == 1:
            return super().forward(inputs, memory, lengths)
        outputs = recurrence.read_gru(inputs, memory["hidden"], self.gru)
        return outputs, {"hidden": last_steps(outputs, lengths)}


def learner_of(name: str, settings: TrialPpoConfig | None = None) -> Learner:
    """Return an untrained learner."""
    return TrainConfig(name, FAMILY, RunConfig(), settings).make_learner()


def acting(learner: Rl2, trials: int, steps: int) -> list[float]:
    """Return the CPU seconds of every step of some parallel trials."""
    stream, observations = generator(0, "actions"), torch.rand(TASKS, trials // TASKS, 2)
    working, seconds = learner.open(learner.begin(TASKS), trials // TASKS, stream), []
    going_on = torch.zeros(TASKS, trials // TASKS, dtype=torch.bool)  # no episode ends
    with single_torch_thread():
        for _ in range(steps):
            began = time.thread_time()
            actions, _ = learner.act(working, observations, stream)
            learner.observe(working, actions, observations[..., 0], going_on)
            seconds.append(time.thread_time() - began)
    return seconds


def measure_acting(trials: int, window: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the cost of a step early in the window, late in it and beyond it, in microseconds, for each memory."""
    learners: dict[str, Learner] = {kind: learner_of("rl2", Rl2Config(memory=kind, window=window)) for kind in KINDS}
    times: dict[str, list[list[float]]] = {kind: [] for kind in learners}
    for turn in range(rounds + 1):
        for kind, learner in learners.items():
            assert isinstance(learner, Rl2)
            seconds = acting(learner, trials, 2 * window)
            if turn > 0:  # the first round warms up
                times[kind].append(seconds)
    rows = {}
    for kind, each in times.items():
        steps = [1e6 * statistics.median(column) for column in zip(*each, strict=True)]
        eighth = window // 8
        places = {"early": steps[:eighth], "late": steps[window - eighth : window], "beyond": steps[-eighth:]}
        row = {place: statistics.median(values) for place, values in places.items()}
        rows[kind] = {**row, "late / early": row["late"] / row["early"], "beyond / late": row["beyond"] / row["late"]}
    return rows


class Iterations:
    """Training iterations of a learner, whose parts are timed."""

    def __init__(self, learner: Learner, trials: int, clock: Callable[[], float] = time.perf_counter) -> None:
        config = TrainConfig(learner.name, FAMILY)
        self._learner, self._episodes = learner, trials // TASKS
        self._sampler, self._split, self._count = Sampler(config.make_family()), config.split(), 0
        self._seconds: dict[str, float] = {}
        self._clock = clock

    def next(self) -> dict[str, float]:
        """Run an iteration; return the seconds of its parts, and the environment steps per second of the whole."""
        self._count, self._seconds = self._count + 1, {"sampling": 0.0, "adaptation": 0.0, "update": 0.0}
        tasks = self._split.train_tasks(TASKS, 0, self._count)
        session = self._sampler.session(self._learner, tasks, self._episodes)
        rollouts: list[Rollout] = []
        for number in range(self._learner.inner_steps + 1):
            if number > 0:
                with self._timed("adaptation"):
                    session.adapt()
            with self._timed("sampling"):
                rollouts.append(self._sampler.run(session, self._count))
        with self._timed("update"):
            self._learner.update(rollouts)
        steps = sum(rollout.env_steps for rollout in rollouts)
        return {**self._seconds, "env steps per second": steps / sum(self._seconds.values())}

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        began = self._clock()
        yield
        self._seconds[part] += self._clock() - began


def measure_training(trials: int, minibatches: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return medians of the parts of an iteration, for the random policy and for each number of epochs."""
    learners = {"random policy": learner_of("random")}
    for epochs in EPOCHS:
        settings = Rl2Config(episodes_per_trial=EPISODES, epochs=epochs, minibatches=minibatches)
        learners[f"rl2, epochs {epochs}"] = learner_of("rl2", settings)
    return in_turn({name: Iterations(learner, trials) for name, learner in learners.items()}, rounds)


def measure_recurrence(rounds: int) -> dict[str, dict[str, float]]:
    """Return medians of the parts of an iteration, for each learner with each recurrence."""
    runs = {}
    for memory in ("torch-gru", "loop-gru", "gru"):
        settings = {
            "rl2": Rl2Config(memory=memory, episodes_per_trial=EPISODES),
            "rl2, one pass": Rl2Config(memory=memory, episodes_per_trial=EPISODES, epochs=1),
            "varibad": VariBadConfig(memory=memory, episodes_per_trial=EPISODES),
        }
        for name, chosen in settings.items():
            learner = learner_of(name.partition(",")[0], chosen)
            runs[f"{name}, {memory}"] = Iterations(learner, 16 * TASKS, time.process_time)
    return in_turn(runs, rounds)


def in_turn(runs: dict[str, Iterations], rounds: int) -> dict[str, dict[str, float]]:
    """Run iterations of each alternately, the first as warm-up; return medians over the others."""
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            row = run.next()
            if turn > 0:
                rows[name].append(row)
    return {
        name: {part: statistics.median(row[part] for row in each) for part in each[0]} for name, each in rows.items()
    }


def show(rows: dict[str, dict[str, float]], head: str) -> None:
    """Print a table."""
    columns = list(next(iter(rows.values())))
    print(f"{head:<26}" + "".join(f"{column:>22}" for column in columns))
    for name, row in rows.items():
        cells = (f"{value:>22,.0f}" if value >= 10 else f"{value:>22.3f}" for value in row.values())
        print(f"{name:<26}" + "".join(cells))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--acting-trials", type=int, default=256)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--trials", type=int, default=1024, help="of a training iteration")
    parser.add_argument("--minibatches", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what is measured; the rest is kept")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the numbers are written")
    options = parser.parse_args()
    if min(options.acting_trials, options.trials) < TASKS or options.window < 8:
        parser.error(f"at least {TASKS} trials and a window of 8 steps")
    if min(options.minibatches, options.rounds, options.threads) < 1:
        parser.error("--minibatches, --rounds and --threads must be at least 1")
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    settings = {name: getattr(options, name) for name in ("acting_trials", "window", "trials", "minibatches", "rounds")}
    print(", ".join(f"{value} {name.replace('_', ' ')}" for name, value in settings.items()))
    measures = {
        "acting": lambda: measure_acting(options.acting_trials, options.window, options.rounds),
        "training": lambda: measure_training(options.trials, options.minibatches, options.rounds),
        "recurrence": lambda: measure_recurrence(options.rounds),
    }
    heads = {"acting": "a step, in us", "training": "training", "recurrence": "processor's time"}
    content = json.loads(options.json.read_text()) if options.json.exists() else {}
    for part in options.parts:
        rows = measures[part]()
        show(rows, heads[part])
        content[part] = {**settings, "threads": options.threads, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
