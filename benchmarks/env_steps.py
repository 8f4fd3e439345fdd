"""Env steps per second of every family by number of worlds, on one device.

    python benchmarks/env_steps.py --device cuda        # 256 to 65536 worlds, every family
    python benchmarks/env_steps.py --worlds 64 512 --families ant-vel gridnavi

"alone" is ``TaskVectorEnv.step`` under fixed random actions, with autoreset; "with a policy" is ``Sampler.collect``
with a 64-64 tanh policy for each of 32 tasks, storage included, counting the steps inside episodes. Each is the median
of three rounds. "First call" is the time of the first construction, reset and step: compiled kernels, graphs, MuJoCo
models. Memory is what the device has allocated since the family was started (on a CPU the growth of the process).
Families whose worlds live on the CPU are skipped on CUDA. A table is printed, and written with a plot next to
``--out``.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import mujoco
import torch
from gymnasium import spaces
from torch import Tensor

import metarl  # noqa: F401 (registers the families)
from metarl.agents.gradient.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.devices.choice import resolve_device
from metarl.envs.wrapped.gymnasium_worlds import EnvironmentFamily
from metarl.errors import InputError
from metarl.families.family import FAMILIES, TaskFamily, make_family
from metarl.families.spaces import unit_scale
from metarl.sampling.sampler import Sampler
from metarl.seeding import generator
from metarl.worlds.vector_env import TaskVectorEnv

RESULTS = Path(__file__).parent / "results"
TASKS, STEPS, ROUNDS = 32, 50, 3


def synchronize(device: torch.device) -> None:
    """Synchronise with the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Time a function, including the device's last kernel."""
    synchronize(device)
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def used(device: torch.device) -> float:
    """Return the MiB in use on the device, or the peak of this process."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return (total - free) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def random_actions(family: TaskFamily, worlds: int, device: torch.device) -> Tensor:
    """Return random actions for ``worlds`` worlds."""
    space = family.action_space
    if isinstance(space, spaces.Discrete):
        return torch.randint(int(space.n), (worlds,), device=device)
    assert space.shape is not None
    return unit_scale(space, device)(2 * torch.rand(worlds, *space.shape, device=device) - 1)


def stepping(env: TaskVectorEnv, actions: Tensor) -> Callable[[], None]:
    """Return a function that takes ``STEPS`` steps in every world."""

    def work() -> None:
        for _ in range(STEPS):
            env.step(actions)

    return work


def measure(name: str, worlds: int, device: torch.device) -> dict[str, float] | None:
    """Return the measurements of one family at one number of worlds, or None if its worlds are on the CPU."""
    before, family = used(device), make_family(name)
    if device.type == "cuda" and isinstance(family, EnvironmentFamily):
        return None
    env = TaskVectorEnv(family, worlds, device)
    actions = random_actions(family, worlds, device)

    def begin() -> None:
        env.reset(seed=0)
        env.step(actions)

    first, step = seconds(begin, device), stepping(env, actions)
    step()
    alone = statistics.median(seconds(step, device) for _ in range(ROUNDS))
    return {
        "alone": worlds * STEPS / alone,
        "with a policy": statistics.median(sampling(family, worlds, device)),
        "first call [s]": first,
        "memory [MiB]": used(device) - before,
    }


def sampling(family: TaskFamily, worlds: int, device: torch.device) -> list[float]:
    """Return the env steps per second of three collections, after a warm-up."""
    learner = MamlTrpo(family, MamlTrpoConfig(), 0, device)
    sampler, tasks = Sampler(family, device), family.sample_tasks(TASKS, generator(0, "tasks"))
    rates = []
    for seed in range(ROUNDS + 1):
        synchronize(device)
        began = time.perf_counter()
        rollout = sampler.collect(learner, learner.begin(TASKS), tasks, max(1, worlds // TASKS), seed)
        rates.append(rollout.env_steps / (time.perf_counter() - began))  # counting the steps waits for the device
    return rates[1:]


def measure_family(name: str, counts: list[int], device: torch.device) -> list[dict[str, float]]:
    """Return the measurements of one family, in a separate process with cold caches."""
    rows = []
    for worlds in counts:
        if (row := measure(name, worlds, device)) is None:
            break
        rows.append({"worlds": worlds, **row})
    return rows


def plot(results: dict[str, list[dict[str, float]]], title: str, path: Path) -> None:
    """Plot env steps per second over the number of worlds, without and with a policy."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 6), sharey=True, layout="constrained")
    for axis, quantity in zip(axes, ("alone", "with a policy"), strict=True):
        for index, (name, rows) in enumerate(results.items()):
            style = ("-", "--", ":")[index // 10 % 3]
            axis.loglog([row["worlds"] for row in rows], [row[quantity] for row in rows], style, marker=".", label=name)
        axis.set(title=quantity, xlabel="worlds")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("env steps per second")
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--worlds", type=int, nargs="+", default=[256, 1024, 4096, 16384, 65536])
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES), metavar="FAMILY")
    parser.add_argument("--out", type=Path, default=RESULTS / "env_steps", help="name of the results, without suffix")
    options = parser.parse_args()
    if min(options.worlds) < TASKS:
        parser.error(f"--worlds must be at least {TASKS}")
    try:
        device = resolve_device(options.device)
    except InputError as error:
        parser.error(str(error))
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{machine}, torch {torch.__version__}, MuJoCo {mujoco.__version__}")
    print(f"{'family':<22}{'worlds':>8}{'alone /s':>14}{'with policy /s':>16}{'first call s':>14}{'MiB':>8}")
    results: dict[str, list[dict[str, float]]] = {}
    for name in options.families:
        with get_context("spawn").Pool(1) as process:
            rows = process.apply(measure_family, (name, options.worlds, device))
        if not rows:
            print(f"{name:<22}its worlds live on the CPU")
            continue
        results[name] = rows
        for row in rows:
            print(
                f"{name:<22}{row['worlds']:>8}{row['alone']:>14,.0f}{row['with a policy']:>16,.0f}"
                f"{row['first call [s]']:>14.2f}{row['memory [MiB]']:>8.0f}",
                flush=True,
            )
        # Written after each family, so that a run that is cut off leaves what it has measured.
        options.out.with_suffix(".json").write_text(
            json.dumps({"machine": machine, "families": results}, indent=1) + "\n"
        )
        plot(results, machine, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
