"""The report of trials whose task changes: a page with the returns by episode, and everything as JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metarl.evaluation.recording import task_text
from metarl.experiments.compare.figures import COLORS
from metarl.experiments.compare.html import Cell, Page, Row, Section, Table, embedded, write_page
from metarl.experiments.compare.page import number
from metarl.experiments.continual.changes import SHARE, Changes, Episodes, measured
from metarl.experiments.continual.figures import changes_figure
from metarl.experiments.continual.report import NUMBERS, PAGE, bounds, text_of
from metarl.numerics.statistics import Interval, interval, mean
from metarl.storage.files import write_json

EMPTIED = ", memory emptied"
BEFORE, AFTER, LOST, EPISODES, STEPS = (
    "return before a change",
    "in the first episode after it",
    "lost",
    "episodes until it is back",
    "env steps until then",
)
NAMES = (BEFORE, AFTER, LOST, EPISODES, STEPS)
READING = (
    "Episodes until it is back: the number of the first episode after a change, from 1, whose mean return is "
    f"{SHARE:.0%} of the way from the trial's first episode, in which nothing was known, to the last one before the "
    "change; of each seed, and with several changes of each change.",
    "Env steps until then: steps of the episodes between the change and that one.",
    "Memory emptied: the same learners, whose memory is emptied at a change, as if they were told of it.",
)


class ChangesReport:
    """What was measured in trials of test tasks.

    Args:
        experiment: whose runs are complete.
    """

    def __init__(self, experiment: Changes) -> None:
        self.experiment = experiment
        self.found: dict[str, Episodes] = {}
        for method in experiment.methods:
            self.found[method] = measured(experiment, method, emptied=False)
            self.found[f"{method}{EMPTIED}"] = measured(experiment, method, emptied=True)

    @property
    def title(self) -> str:
        """Learner, family and number of tasks."""
        base = self.experiment.base
        return f"{base.learner_name} in trials of {self.experiment.tasks} tasks of {base.family_name} ({base.preset})"

    def returns_at_changes(self, episodes: Episodes) -> dict[str, Interval]:
        """Return the means over changes of the returns before and after them, and of what is lost."""
        each = self.experiment.episodes_each
        changes = np.arange(each, self.experiment.episodes, each)
        before, after = (episodes.returns[:, :, changes - back].mean(-1) for back in (1, 0))
        return {
            BEFORE: interval(mean, before),
            AFTER: interval(mean, after),
            LOST: interval(mean, before - after),
        }

    def recovery(self, episodes: Episodes) -> dict[str, list[list[int | None]]]:
        """Return how many episodes, and env steps, it takes until the return is back: by seed, and by change."""
        each = self.experiment.episodes_each
        found = episodes.recovery(each)
        steps = [
            [
                None if back is None else round(lengths[change * each : change * each + back - 1].sum())
                for change, back in enumerate(row, 1)
            ]
            for row, lengths in zip(found, episodes.env_steps, strict=True)
        ]
        return {EPISODES: found, STEPS: steps}

    def write(self, command: str) -> None:
        """Write the page, its figure and the numbers; an earlier report is replaced."""
        out = self.experiment.out
        returns = {label: episodes.returns for label, episodes in self.found.items()}
        picture = changes_figure(returns, self.experiment.episodes_each, EMPTIED)
        image = embedded(out / picture.save(out)[0], picture.alt, picture.caption)
        write_json(out / NUMBERS, self.to_json(command))
        sections = [
            Section("summary", "Summary", READING, [image], [self._summary()]),
            Section("episodes", "Every episode", (), (), [self._every_episode()]),
            Section("tasks", "Tasks", (), (), [self._tasks()]),
        ]
        write_page(Page(self.title, self._protocol(), command, sections), out / PAGE)

    def table(self) -> list[str]:
        """Return the summary as lines of text."""
        lines = [f"{self.title}; 95 % intervals over seeds and tasks"]
        for label, episodes in self.found.items():
            lines += ["", label]
            lines += [f"  {name:<32}{text_of(value)}" for name, value in self.returns_at_changes(episodes).items()]
            lines += [f"  {name:<32}{_seeds(values)}" for name, values in self.recovery(episodes).items()]
        return lines

    def to_json(self, command: str) -> dict[str, Any]:
        """Return everything as plain lists; returns are ``[seed][first task][episode]``."""
        experiment, resolved = self.experiment, self.experiment.base.to_json()
        return {
            "command": command,
            **{name: resolved[name] for name in ("learner", "family", "preset", "settings", "family_settings", "run")},
            "versions": resolved["versions"],
            "tasks": [{key: value.tolist() for key, value in task.items()} for task in experiment.sequence],
            "seeds": list(experiment.seeds),
            "tasks_per_trial": experiment.tasks,
            "recovered_share": SHARE,
            "methods": {label: self._method(episodes) for label, episodes in self.found.items()},
        }

    def _method(self, episodes: Episodes) -> dict[str, Any]:
        values = {
            name: dict(zip(("estimate", "low", "high"), map(float, value), strict=True))
            for name, value in self.returns_at_changes(episodes).items()
        }
        arrays = {"returns": episodes.returns.tolist(), "env_steps": episodes.env_steps.tolist()}
        return {"measures": values, **self.recovery(episodes), **arrays}

    def _protocol(self) -> str:
        experiment = self.experiment
        run, seeds = experiment.base.run, ", ".join(map(str, experiment.seeds))
        return (
            f"Trials of {experiment.episodes} episodes. After every {experiment.episodes_each} the task changes, and "
            f"the learner is not told. {len(experiment.sequence)} test tasks; {run.episodes_per_task} trials "
            "begin with each of them, and go on with those after it, so that every task is met equally often at each "
            f"place. Training: {run.iterations} iterations on trials of one task (constant), or on trials whose task "
            f"changes as often, at random episodes (changing). Seeds {seeds}; 95 % intervals over seeds and tasks."
        )

    def _summary(self) -> Table:
        rows = []
        for index, (label, episodes) in enumerate(self.found.items()):
            cells = [
                Cell(number(float(found.estimate)), [bounds(found)])
                for found in self.returns_at_changes(episodes).values()
            ]
            cells += [Cell(_seeds(values)) for values in self.recovery(episodes).values()]
            rows.append(Row(label, cells, COLORS[index // 2 % len(COLORS)]))
        return Table("Measures", ["", *NAMES], rows)

    def _every_episode(self) -> Table:
        rows = []
        for label, episodes in self.found.items():
            means = episodes.returns.mean((0, 1))
            rows.append(Row(label, [Cell(number(float(value))) for value in means]))
        columns = ["", *(f"episode {number}" for number in range(1, self.experiment.episodes + 1))]
        return Table("Mean return over seeds and tasks", columns, rows)

    def _tasks(self) -> Table:
        rows = [Row(f"task {index}", [Cell(task_text(task))]) for index, task in enumerate(self.experiment.sequence)]
        return Table("Tasks", ["", "parameters"], rows)


def _seeds(values: Sequence[Sequence[int | None]]) -> str:
    """Return the values of every seed, separated by commas, and of its changes, separated by slashes."""
    return ", ".join("/".join("never" if value is None else str(value) for value in row) for row in values)
