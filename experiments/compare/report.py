"""The report folder of a comparison: a page, figures, and the data as CSV."""

import csv
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metarl.errors import InputError
from metarl.experiments.compare.beliefs import belief_figures
from metarl.experiments.compare.comparison import Comparison
from metarl.experiments.compare.embeddings import embedding_figures
from metarl.experiments.compare.figures import Picture, curve_figures, task_figures, training_figure
from metarl.experiments.compare.html import Image, embedded, write_page
from metarl.experiments.compare.page import make_page
from metarl.experiments.compare.paths import path_figures
from metarl.experiments.compare.statistics import Summary
from metarl.experiments.compare.videos import record_video
from metarl.run.directory import RunDirectory
from metarl.storage.files import make_folder, write_json, write_whole

FORMAT = "metarl comparison 1"
RECORD, PAGE, RESULTS, SUMMARY = "comparison.json", "index.html", "results.csv", "summary.csv"


class ReportFolder:
    """The folder of a report; an earlier report in it is replaced, other files are kept.

    Args:
        path: path of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: list[str] = []

    def prepare(self, runs: Sequence[str]) -> None:
        """Create the folder if it does not exist.

        Raises:
            InputError: if it is inside one of the run directories, has other content, or cannot be written to.
        """
        here = self.path.resolve()
        for run in runs:
            if RunDirectory(run).path.resolve() in (here, *here.parents):
                raise InputError(
                    f"{self.path} is inside the run {run}, which must not be changed; choose another --out"
                )
        empty = make_folder(self.path, "a report")
        if not empty and self._read_record().get("format") != FORMAT:
            raise InputError(
                f"{self.path} contains files that are not a report of metarl compare; choose another --out"
            )

    def write(self, comparison: Comparison, summary: Summary, command: str, videos: bool) -> None:
        """Write all files, and remove those of an earlier report that this one lacks."""
        earlier = self._read_record().get("files", [])
        write_json(self.path / RECORD, {"format": FORMAT, "files": earlier})  # first, in case writing is interrupted
        self._write_rows(RESULTS, result_rows(comparison))
        self._write_rows(SUMMARY, map(dataclasses.asdict, summary.measures))
        images = {
            "curves": self._images(curve_figures(comparison)),
            "tasks": self._images(task_figures(comparison)),
            "training": self._images([training_figure(comparison)]),
        }
        images["behaviour"], remark = self._videos(comparison) if videos else ([], "")
        shown = [*path_figures(comparison), *belief_figures(comparison), *embedding_figures(comparison)]
        images["paths"] = self._images(shown)
        write_page(make_page(comparison, summary, command, images, remark), self.path / PAGE)
        self._files.append(PAGE)
        for name in set(earlier) - set(self._files):
            (self.path / Path(name).name).unlink(missing_ok=True)
        write_json(self.path / RECORD, {"format": FORMAT, **record(comparison, command), "files": self._files})

    def list_files(self) -> list[str]:
        """Return the paths of the files to look at, one per line."""
        numbers = f"{self.path / SUMMARY} (statistics), {self.path / RESULTS} (every task and step)"
        return [f"{'report':<10}{self.path / PAGE}", f"{'numbers':<10}{numbers}"]

    def _images(self, pictures: Iterable[Picture]) -> list[Image]:
        images = []
        for picture in pictures:
            svg, png = picture.save(self.path)
            self._files += [svg, png]
            images.append(embedded(self.path / svg, picture.alt, picture.caption))
        return images

    def _videos(self, comparison: Comparison) -> tuple[list[Image], str]:
        """Return a video of each entry, or no videos and the reason."""
        images = []
        for entry in comparison.entries:
            try:
                video = record_video(comparison, entry, self.path)
            except InputError as reason:
                return [], f"No videos: {reason}."
            self._files.append(video.name)
            images.append(embedded(self.path / video.name, video.alt, video.caption))
        return images, ""

    def _write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        def write(path: Path) -> None:
            first, *others = rows
            with open(path, "w", newline="") as stream:
                writer = csv.DictWriter(stream, list(first))
                writer.writeheader()
                writer.writerows([first, *others])

        write_whole(self.path / name, write)
        self._files.append(name)

    def _read_record(self) -> dict[str, Any]:
        try:
            content = json.loads((self.path / RECORD).read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def result_rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """Yield the results: a row for each run, task and step.

    ``success`` is empty if the family does not define it.
    """
    names, parameters = comparison.parameters()
    for entry in comparison.entries:
        for run, curve in zip(entry.runs, entry.curves, strict=True):
            for task, values in enumerate(parameters):
                for step, spent in enumerate(curve.env_steps):
                    yield {
                        "learner": entry.label,
                        "seed": run.config.run.seed,
                        "task": task,
                        **dict(zip(names, values, strict=True)),
                        "step": step,
                        "env_steps": float(spent),
                        "return": float(curve.returns[task, step]),
                        "success": None if curve.success is None else float(curve.success[task, step]),
                    }


def record(comparison: Comparison, command: str) -> dict[str, Any]:
    """Return a JSON-compatible record of what was compared and how."""
    config, protocol = comparison.example.config, comparison.protocol
    resolved = config.to_json()
    return {
        "command": command,
        **{name: resolved[name] for name in ("family", "preset", "family_settings", "split_hash", "versions")},
        "tasks": len(comparison.tasks),
        "part": protocol.part,
        "actions": "deterministic" if protocol.deterministic else "sampled",
        "checkpoint": protocol.checkpoint,
        "evaluation_seed": protocol.seed,
        "intervals_over": comparison.others,
        "learners": [
            {
                "label": entry.label,
                "learner": entry.runs[0].config.learner,
                "steps": entry.last,
                "episodes_per_step": entry.curves[0].episodes,
                "settings": entry.runs[0].settings,
                "runs": [
                    {"path": run.path, "seed": run.config.run.seed, "iteration": run.iteration} for run in entry.runs
                ],
            }
            for entry in comparison.entries
        ],
    }
