"""The card of a published run: its README.md, with the metadata that the Hugging Face Hub reads."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from metarl.numerics.statistics import conditional_value_at_risk, interval, mean

PAGE = """---
{metadata}---

# {learner} on {family}

A meta-policy trained with metarl: it adapts to a new task of `{family}` (preset
`{preset}`) within a few episodes. Seed {seed}, {iterations:,} iterations, {env_steps:,} env steps{minutes}.

```bash
metarl evaluate {name}
```

```python
import metarl

session = metarl.load_session("{name}")
```

Return on {tasks} {part} tasks, {actions} actions, seed {evaluation_seed} of environments and actions. CVaR 0.95 is the
mean of the worst 5 % of tasks. The interval is for other tasks, for this one trained policy.

| | env steps on the task | mean return | 95 % interval | CVaR 0.95 |
|---|---|---|---|---|
{rows}

`config.json` has all settings and the versions of libraries, `metrics.csv` a row for each iteration of training,
`contents.json` the SHA-256 of each file.
"""


def run_card(
    name: str, config: Mapping[str, Any], evaluation: Mapping[str, Any], rows: Sequence[Mapping[str, float | None]]
) -> str:
    """Return the text.

    Args:
        name: what the published run is called, ``hub:...``.
        config: content of its config.json.
        evaluation: content of its evaluation.json.
        rows: its metrics, up to the published checkpoint.
    """
    returns = np.array(evaluation["returns"])
    minutes = sum(row["time_iteration"] or 0 for row in rows) / 60
    return PAGE.format(
        metadata=yaml.safe_dump(_metadata(name, config, returns), sort_keys=False),
        name=name,
        learner=config["learner"],
        family=config["family"],
        preset=config["preset"],
        seed=config["run"]["seed"],
        iterations=evaluation["iteration"],
        env_steps=int(rows[-1]["env_steps"] or 0) if rows else 0,
        minutes=f", {minutes:,.0f} min on {config['run']['device']}" if rows else "",
        tasks=len(returns),
        part=evaluation["part"],
        actions=evaluation["actions"],
        evaluation_seed=evaluation["seed"],
        rows="\n".join(_row(step, returns[:, step], evaluation) for step in range(returns.shape[1])),
    )


def _row(step: int, returns: np.ndarray, evaluation: Mapping[str, Any]) -> str:
    label = f"after step {step}" if step else "before adaptation"
    _, low, high = map(float, interval(mean, returns[None])) if len(returns) > 1 else (np.nan,) * 3
    worst = conditional_value_at_risk(returns[None]).item()
    cells = [label, f"{evaluation['env_steps'][step]:,.0f}", f"{returns.mean():z.2f}", f"[{low:z.2f}, {high:z.2f}]"]
    return f"| {' | '.join(cells)} | {worst:z.2f} |"


def _metadata(name: str, config: Mapping[str, Any], returns: np.ndarray) -> dict[str, Any]:
    """Return the model index that the Hub shows: the mean return after the last step."""
    result = {
        "task": {"type": "reinforcement-learning", "name": "adaptation to held-out tasks"},
        "dataset": {"type": config["family"], "name": f"{config['family']} ({config['preset']})"},
        "metrics": [{"type": "mean_return", "value": round(float(returns[:, -1].mean()), 2)}],
    }
    return {
        "library_name": "metarl",
        "tags": ["reinforcement-learning", "meta-reinforcement-learning", config["learner"], config["family"]],
        "model-index": [{"name": name.rpartition(":")[2], "results": [result]}],
    }
