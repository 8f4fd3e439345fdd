"""The configuration of a training run, as frozen dataclasses that can be written to JSON and read back."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import torch
from pydantic import ValidationError

from metarl.devices.choice import resolve_device
from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.errors import InputError
from metarl.families.family import FAMILIES, TaskFamily, make_family
from metarl.families.family_settings import checked_settings, preset_and_settings
from metarl.families.references import Reference
from metarl.families.splits import TaskSplit
from metarl.learning.learner import CHANGING, LEARNERS, Learner
from metarl.registry import own_name
from metarl.run.config_file import (
    ADDED,
    CONDITIONS,
    HASHED,
    adapter,
    checked_section,
    config_hash,
    fault_in,
    recorded_versions,
    refuse_changes,
    refuse_old_numbers,
    refuse_unknown,
    refuse_unknown_settings,
    warn_of_other_versions,
)
from metarl.run.labels import RunLabels
from metarl.sampling.changing_tasks import ChangingConfig
from metarl.sampling.task_source import TASK_SOURCES, PlrConfig, StreamConfig
from metarl.validation import require_counts, require_not_negative, sizes_that_fit

TrackMode = Literal["auto", "online", "offline", "disabled", "tensorboard"]


@dataclass(frozen=True)
class RunConfig:
    """Settings common to all training runs."""

    iterations: int = 100
    """Number of outer updates."""
    seed: int = 1
    """Seed of all randomness in the run except the choice of held-out tasks."""
    device: str = "cpu"
    """Torch device of environments, policies and updates: cpu, cuda, cuda:1 ..."""
    out: str | None = None
    """Directory of the run, new or empty; by default runs/LEARNER-FAMILY-seedSEED, in a sweep runs/SWEEP/RUN."""
    track: TrackMode = "auto"
    """Where to log: online, offline (W&B), tensorboard or disabled; auto is W&B, online with an API key, else
    offline."""
    preset: str | None = None
    """Preset of the family (metarl families show NAME lists them); by default the first."""
    horizon: int | None = None
    """Maximum number of steps per episode; by default the preset's."""
    tasks_per_batch: int = 20
    """Number of tasks per iteration."""
    episodes_per_task: int = 20
    """Episodes per task before each adaptation step, and after the last one."""
    task_source: str = "uniform"
    """Source of training tasks: uniform draws from the split, plr (prioritised level replay), stream (one task after
    another), changing (tasks change inside trials), or your own as module:name."""
    train_tasks: int | None = None
    """Train on a fixed set of this many tasks; by default on all training tasks of the split."""
    data: str | None = None
    """Folder of recorded episodes (from metarl collect) to train on without environment steps; validation still
    samples."""
    plr: PlrConfig = dataclasses.field(default_factory=PlrConfig)
    """Settings of prioritised level replay."""
    stream: StreamConfig = dataclasses.field(default_factory=StreamConfig)
    """Settings of a stream of tasks."""
    changing: ChangingConfig = dataclasses.field(default_factory=ChangingConfig)
    """Settings of tasks that change inside a trial."""
    split_seed: int = 0
    """Seed of the split into training, validation and test tasks; runs to be compared must share it."""
    checkpoint_every: int = 10
    """Iterations between checkpoints; a run that is stopped also writes one."""
    checkpoint_minutes: float = 10.0
    """Also write a checkpoint when the last one is this many minutes old; 0 disables this."""
    validate_every: int = 0
    """Iterations between evaluations on validation tasks, which select the best checkpoint; 0 validates only at the
    end."""
    redraw: tuple[int, ...] = ()
    """Iterations whose tasks and episodes are drawn from different random streams, to get past a failure of an
    environment that would recur on every resume. An iteration given twice is drawn in yet another way."""
    group: str | None = None
    """W&B group and name of the experiment; by default LEARNER-FAMILY-PRESET, which groups the seeds."""
    labels: RunLabels = dataclasses.field(default_factory=RunLabels)
    """Project, account, tags and notes in W&B."""
    histogram_every: int = 0
    """Iterations between histograms of the parameters in W&B or TensorBoard; 0 logs none."""
    start_from: str | None = None
    """Run whose trained learner this one starts with; --from is short for it."""

    def __post_init__(self) -> None:
        require_counts(self, "iterations", "tasks_per_batch", "episodes_per_task", "checkpoint_every")
        require_not_negative(self, "validate_every", "checkpoint_minutes", "histogram_every")
        for name in ("horizon", "train_tasks"):
            if getattr(self, name) is not None:
                require_counts(self, name)
        TASK_SOURCES.find(self.task_source)
        if self.data is not None and (self.task_source != "uniform" or self.train_tasks is not None):
            raise InputError("--data determines the tasks; omit --task-source and --train-tasks")
        resolve_device(self.device)


@dataclass(frozen=True)
class TrainConfig:
    """A complete training run: learner, family, settings of the run and settings of the learner.

    Attributes:
        learner: name of a registered learner, or ``module:name``, which imports the module that registers it.
        family: name of a registered family, or ``module:name``. A family may be given instead: its preset and horizon
            are stored in ``run``, its other fields in ``family_overrides``.
        run: settings of the run.
        settings: an instance of the learner's ``config_class``, or a dict of some of its fields; None for the defaults.
        family_overrides: values of the family's fields that replace its preset's (``metarl.families.family_settings``).

    Raises:
        InputError: for unknown names and invalid settings.
    """

    learner: str
    family: Any
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    settings: Any = None
    family_overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.family, str):
            self._take_apart(self.family)
        overrides = checked_settings(FAMILIES.find(self.family), self.family_overrides)
        object.__setattr__(self, "family_overrides", overrides)
        object.__setattr__(self, "run", checked_section(RunConfig, vars(self.run), "run", self.learner))
        chosen, given = self.learner_class.config_class, self.settings or {}
        kind = chosen if isinstance(given, Mapping) else type(given)
        if not issubclass(kind, chosen):
            raise InputError(f"the settings of {self.learner} must be a {chosen.__name__}, not a {kind.__name__}")
        values = given if isinstance(given, Mapping) else vars(given)
        object.__setattr__(self, "settings", checked_section(kind, values, "settings", self.learner))
        able = [name for name, learner in LEARNERS.items() if learner.learns_from_recorded]
        if self.run.data is not None and not self.learner_class.learns_from_recorded:
            raise InputError(f"{self.learner} must collect its own episodes; --data works with {', '.join(able)}")
        source = self.run.task_source
        if TASK_SOURCES.find(source).inside_trials and CHANGING not in self.learner_class.continual:
            names = ", ".join(name for name, learner in LEARNERS.items() if CHANGING in learner.continual)
            raise InputError(f"{self.learner} learns one task at a time; --task-source {source} is for {names}")
        self.make_family().check_device(resolve_device(self.run.device))

    def _take_apart(self, family: TaskFamily) -> None:
        """Replace a family by what makes it again: its name, preset, horizon and other fields."""
        name, preset, fields = preset_and_settings(family, self.run.preset)
        if self.family_overrides or self.run.horizon not in (None, family.horizon):
            raise InputError(f"set the horizon and other fields of {name} in the family that you pass")
        default = next(iter(family.presets))
        run = dataclasses.replace(
            self.run,
            preset=self.run.preset if preset == default else preset,
            horizon=fields.pop("horizon", None),
        )
        for attribute, value in {"family": name, "run": run, "family_overrides": fields}.items():
            object.__setattr__(self, attribute, value)

    @property
    def learner_class(self) -> type[Learner]:
        """The class of the learner."""
        return LEARNERS.find(self.learner)

    @property
    def learner_name(self) -> str:
        """The learner's name, without a module."""
        return own_name(self.learner)

    @property
    def family_name(self) -> str:
        """The family's name, without a module."""
        return own_name(self.family)

    def make_family(self) -> TaskFamily:
        """Make the family with the run's preset, horizon and overrides, as the learner's view shows it."""
        overrides = dict(self.family_overrides)
        if self.run.horizon is not None:
            overrides["horizon"] = self.run.horizon
        family = make_family(self.family, self.run.preset, **overrides)
        return self.learner_class.view(family, self.settings)

    def resumed(self, iterations: int | None, redraw: Sequence[int] = ()) -> "TrainConfig":
        """Return the configuration of a resumed run, with a new number of iterations and more iterations to redraw."""
        total = self.run.iterations if iterations is None else iterations
        run = dataclasses.replace(self.run, iterations=total, redraw=(*self.run.redraw, *redraw))
        return dataclasses.replace(self, run=run)

    def make_learner(self) -> Learner:
        """Make the learner, untrained."""
        device = resolve_device(self.run.device)
        with sizes_that_fit(self.learner):
            return self.learner_class(self.make_family(), self.settings, self.run.seed, device)

    def split(self) -> TaskSplit:
        """Return the family's training, validation and test tasks."""
        return TaskSplit(self.make_family(), self.run.split_seed, self.run.train_tasks)

    @cached_property
    def split_hash(self) -> str:
        """The hash of the family's settings and the first tasks of each part; drawing them takes milliseconds."""
        return self.split().fingerprint()

    @property
    def preset(self) -> str:
        """The name of the preset, even if it is the default."""
        return self.run.preset or next(iter(self.make_family().presets))

    def find_reference(self) -> Reference | None:
        """Return the reference returns of the family's preset; None if there are none, or fields are overridden.

        Those of a class that the family's inherits from are not its own: it may have another reward.
        """
        own: Mapping[str, Reference] = vars(FAMILIES.find(self.family)).get("references", {})
        found = None if self.family_overrides else own.get(self.preset)
        return found if found is not None and found.horizon == self.make_family().horizon else None

    @property
    def group(self) -> str:
        """The W&B group of the run."""
        return self.run.group or f"{self.learner_name}-{self.family_name}-{self.preset}"

    def to_json(self, data_hash: str | None = None) -> dict[str, Any]:
        """Return the resolved configuration, with its hash, the split's hash, threads and library versions.

        Args:
            data_hash: of the recorded episodes that the run trains on, if any.
        """
        content: dict[str, Any] = {
            "learner": self.learner,
            "family": self.family,
            "preset": self.preset,
            "split_hash": self.split_hash,
            "run": dataclasses.asdict(self.run),
            "settings": dataclasses.asdict(self.settings),
            "family_overrides": self.family_overrides,
            "family_settings": self.make_family().settings(),
            "numbers": self.learner_class.numbers,
        }
        content |= {"versions": recorded_versions(), "torch_threads": torch.get_num_threads(), "data_hash": data_hash}
        return {**content, "config_hash": config_hash(content)}

    @classmethod
    def from_json(cls, content: dict[str, Any], device: str | None = None, processes: Processes = ONE_PROCESS) -> Self:
        """Rebuild a configuration from the output of ``to_json``.

        Args:
            content: content of config.json.
            device: device to use instead of the recorded one.
            processes: which may have devices of their own.

        Raises:
            InputError: if an entry is missing, unknown, of the wrong type or was edited, or the task split has changed.
        """
        try:
            refuse_unknown(content, (*HASHED, *ADDED))
            learner, family = (adapter(str).validate_python(content[name]) for name in ("learner", "family"))
            config_class = LEARNERS.find(learner).config_class
            recorded = {**content["run"], "device": processes.device(device or content["run"]["device"])}
            refuse_unknown_settings(RunConfig, recorded, "run.")
            refuse_unknown_settings(config_class, content["settings"], "settings.")
            run = adapter(RunConfig).validate_python(recorded)
            settings: Any = adapter(config_class).validate_python(content["settings"])
            given = content.get("family_overrides", {})  # older runs have no overrides
            overrides = adapter(dict[str, Any]).validate_python(given)
            expected = content["split_hash"]
            _ = [content[name] for name in (*HASHED, *CONDITIONS, "config_hash")]
        except (KeyError, TypeError, ValidationError, ValueError, OverflowError) as error:
            raise InputError(
                f"the run's config.json was not written by this version of metarl ({fault_in(error)}); restore it, or "
                "use the version that wrote it"
            ) from None
        config = cls(learner, family, run, settings, overrides)
        if config.split_hash != expected:
            raise InputError(
                f"the task split of {family} has changed since the run was started (split hash {expected}, now "
                f"{config.split_hash}), so it may have been trained on held-out tasks; start a new run"
            )
        refuse_changes(content, config.to_json())
        return config

    def check_resumable(self, content: dict[str, Any]) -> None:
        """Refuse to resume a run that would no longer give the same numbers; warn about other library versions.

        Raises:
            InputError: if the learner's arithmetic has changed since the run was started.
        """
        refuse_old_numbers(content, self.learner_class.numbers)
        warn_of_other_versions(content)
