"""Load on ``metarl serve``: 64 tasks of a 64-64 MAML policy act at once, each as fast as it is answered.

    apt-get install wrk
    python -m benchmarks.serve

Each of wrk's connections has a task of its own on half-cheetah-vel: it asks for an action, sends the step's outcome,
and so on, episode after episode; every answer is on disk before it is sent, and tasks adapt after 5 to 10 episodes
of 20 steps. Some rounds are paced: a step of the world takes 80 ms, and the tasks do not start together. In the others
it takes none, and 64 requests are always waiting. For each window (the milliseconds for which the first request waits
for others to share its forward pass), it prints actions per second, the times of all requests, actions and outcomes
alike, and the CPU time of the server and of the load generator, which shares its cores, for an action and its outcome.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from metarl.agents.gradient.maml_trpo import MamlTrpoConfig
from metarl.client import Client
from metarl.run.config import RunConfig, TrainConfig
from metarl.training.train import train

SERVE = [sys.executable, "-m", "metarl.experiments.commands.main", "serve"]
RESULTS = Path(__file__).parent / "results" / "serve.json"
HORIZON, STEP_MS = 20, 80
# Each thread of wrk has one connection, and acts in one task.
SCRIPT = """
local tasks, number = {%(tasks)s}, 0
local headers = {["Content-Type"] = "application/json"}

function setup(thread)
  number = number + 1
  thread:set("task", tasks[number])
  thread:set("failed", 0)
  threads = threads or {}
  table.insert(threads, thread)
end

function init(args)
  step, acting = 0, true
  math.randomseed(tonumber(string.sub(task, 1, 8), 16))
  first = math.random(0, %(think)d)
end

function delay()
  local pause = acting and (first or %(think)d) or 0
  first = nil
  return pause
end

function request()
  local body
  if acting then
    local seen = step == 0 and ', "observation": %(observation)s' or ""
    body = '{"task": "' .. task .. '"' .. seen .. "}"
    return wrk.format("POST", "/execute_task", headers, body)
  end
  local last = step == %(last)d and "true" or "false"
  body = '{"task": "' .. task .. '", "reward": -1.5, "terminated": false, "truncated": ' .. last ..
    ', "next_observation": %(observation)s, "step": ' .. step .. "}"
  return wrk.format("POST", "/feedback", headers, body)
end

function response(status, headers, body)
  if status ~= 200 then
    failed = failed + 1
  elseif acting then
    acting = false
  else
    acting, step = true, (step + 1) %% %(horizon)d
  end
end

function done(summary, latency, requests)
  local failures = 0
  for _, thread in ipairs(threads) do failures = failures + thread:get("failed") end
  io.write(string.format(
    '{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "max": %%f, "failures": %%d, "timeouts": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, failures, summary.errors.timeout + summary.errors.connect + summary.errors.read))
end
"""


def measure(run: str, folder: Path, tasks: int, seconds: int, window: float, think: int) -> dict[str, Any]:
    """Load a new server; return the measurements."""
    options = ["--port", "0", "--window", str(window), "--database", str(folder / f"{window}-{think}.sqlite")]
    server = subprocess.Popen([*SERVE, run, *options], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().split()[0]
    with Client(url) as client:
        ids = [client.task(adapt_after=5 + number % 6).id for number in range(tasks)]
    words = {
        "tasks": ", ".join(f'"{task}"' for task in ids),
        "observation": json.dumps(np.linspace(-1, 1, 17).round(4).tolist()),
        "last": HORIZON - 1,
        "think": think,
        "horizon": HORIZON,
    }
    script = folder / "load.lua"
    script.write_text(SCRIPT % words)
    began, before = processor_seconds(server.pid), generator_seconds()
    command = ["wrk", f"-t{tasks}", f"-c{tasks}", f"-d{seconds}s", "-s", str(script), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent, own = processor_seconds(server.pid) - began, generator_seconds() - before
    metrics = httpx.get(f"{url}/metrics").text
    server.terminate()
    server.wait()
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    actions = found["requests"] / 2
    found |= {"window": window, "think": think}
    found |= {"actions_per_second": actions / found["seconds"], "server_cpu_ms": 1000 * spent / actions}
    found["generator_cpu_ms"] = 1000 * own / actions
    passes = {key: value(metrics, f"metarl_tasks_per_pass_{key}") for key in ("sum", "count")}
    assert found["failures"] + found["timeouts"] == 0, said
    return found | {
        "tasks_per_pass": passes["sum"] / passes["count"],
        "adaptations": value(metrics, "metarl_adaptations_total"),
    }


def value(metrics: str, name: str) -> float:
    """Return a value from metrics in Prometheus' format."""
    return float(next(line for line in metrics.splitlines() if line.startswith(f"{name} ")).split()[1])


def processor_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def generator_seconds() -> float:
    """Return the CPU seconds that the load generators that have ended used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--windows", type=float, nargs="+", default=[0.0, 1.0, 5.0], help="milliseconds")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the table is written")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("this needs wrk, a load generator: apt-get install wrk")
    with tempfile.TemporaryDirectory(dir=".") as name:
        settings = {"iterations": 1, "tasks_per_batch": 2, "horizon": HORIZON, "track": "disabled"}
        run = RunConfig(**settings, out=f"{name}/run")  # type: ignore[arg-type]
        train(TrainConfig("maml-trpo", "half-cheetah-vel", run, MamlTrpoConfig(hidden_sizes=(64, 64))))
        rounds = [(window, think) for think in (STEP_MS, 0) for window in options.windows]
        rows = [measure(f"{name}/run", Path(name), options.tasks, options.seconds, *each) for each in rounds]
    load = os.getloadavg()[0]
    options.json.write_text(json.dumps({"tasks": options.tasks, "load_average": load, "rows": rows}, indent=2) + "\n")
    print(table(options.json))


def table(path: Path = RESULTS) -> str:
    """Return the committed table in Markdown."""
    rows = json.loads(path.read_text())["rows"]
    names = (
        "a step takes, ms",
        "window, ms",
        "actions/s",
        "p50, ms",
        "p99, ms",
        "tasks per pass",
        "CPU per action, ms",
        "generator's",
    )
    keys = ("think", "window", "actions_per_second", "p50", "p99", "tasks_per_pass")
    times = ("server_cpu_ms", "generator_cpu_ms")
    formats = ("d", "g", ".0f", ".1f", ".1f", ".1f", ".2f", ".2f")
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [format(row[key], kind) for key, kind in zip(keys + times, formats, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
