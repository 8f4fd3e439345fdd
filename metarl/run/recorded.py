"""Recorded episodes on disk: a folder of shards with a manifest, for off-policy learners.

    data.json          what was recorded, of which family, and the SHA-256 of each shard
    shard-00000.npz    the episodes of a group of tasks

The manifest is written last, so a folder without one is not a data set.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from tensordict import TensorDict
from torch import Tensor

from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.rollouts.rollout import Rollout, join_steps
from metarl.run.config_file import adapter
from metarl.run.tensor_files import read_tensors, write_tensors
from metarl.sampling.episodes import OF_THE_FAMILY
from metarl.seeding import generator
from metarl.storage.files import make_folder, write_json

FORMAT = "metarl data 1"
MANIFEST = "data.json"
TASK = "task."
# Tensors [N, M, T, ...] of a rollout that are recorded; the policy's probabilities are not.
STEPS = ("observations", "actions", "rewards", "terminated", "truncated", "valid")


@dataclass(frozen=True)
class Description:
    """Metadata of recorded episodes.

    Attributes:
        family: name of the family.
        observation_space: observation space as text.
        action_space: the environment's action space as text; recorded actions are in the policy's units.
        part: part of the split that the tasks are from; None if unknown.
        split_hash: hash of the split; None if unknown, in which case held-out tasks cannot be detected.
        settings: settings of the family.
        made_by: how the episodes were recorded, in readable form.
        rounds: number of rounds that a task's episodes are from, between which the learner adapted; those of a round
            come one after another, and the i-th of each round belong to one history. 1 if their order means nothing.
    """

    family: str
    observation_space: str
    action_space: str
    part: str | None = None
    split_hash: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    made_by: dict[str, Any] = field(default_factory=dict)
    rounds: int = 1

    @classmethod
    def of(cls, family: TaskFamily, **known: Any) -> "Description":
        """Describe episodes of a family; ``known`` are the attributes that the family does not determine."""
        spaces = str(family.observation_space), str(family.action_space)
        return cls(family.name, *spaces, settings=dict(family.settings()), **known)


@dataclass(frozen=True)
class Shard:
    """A file with the episodes of ``tasks`` tasks."""

    file: str
    tasks: int
    env_steps: int
    sha256: str


@dataclass(frozen=True)
class RecordedData:
    """M episodes of each of N tasks, in memory.

    Attributes:
        rollout: N tasks x M episodes, without the policy's probabilities.
        description: their metadata.
        fingerprint: SHA-256 of the manifest, and thereby of all shards.
        path: where they were read from, for messages.
    """

    rollout: Rollout
    description: Description
    fingerprint: str
    path: Path

    def check(self, family: TaskFamily, split_hash: str) -> None:
        """Check that a learner may be trained on this data.

        Args:
            family: family of the run.
            split_hash: hash of the run's split.

        Raises:
            InputError: if the data are from another family, other spaces, held-out tasks or another split, or have
                episodes longer than the family's horizon.
        """
        known, wanted = self.description, Description.of(family)
        if known.family != wanted.family:
            raise InputError(f"{self.path} was recorded on {known.family} and cannot be used for {wanted.family}")
        for name in ("observation_space", "action_space"):
            found, expected = getattr(known, name), getattr(wanted, name)
            if found != expected:
                told = f"the {name} of {self.path} is {found}, but that of the run is {expected}"
                raise InputError(f"{told}; use the same --preset")
        if known.part not in (None, "train"):
            raise InputError(
                f"{self.path} contains {known.part} tasks, which must not be trained on; record with --part train"
            )
        if known.split_hash not in (None, split_hash):
            given = known.settings | {name: known.made_by.get(name) for name in ("preset", "split_seed")}
            raise InputError(
                f"{self.path} was recorded with another split ({known.split_hash}, not {split_hash}), so it may "
                f"contain held-out tasks; use the --preset, --horizon and --split-seed of the recording: {given}"
            )
        steps = int(self.rollout.valid.sum(-1).max())
        if steps > family.horizon:
            raise InputError(
                f"{self.path} has episodes of {steps} steps, but those of the run have at most {family.horizon}; use "
                f"--horizon {steps} or more"
            )

    def draw(
        self,
        tasks: int,
        episodes: int,
        rollouts: int,
        seed: int,
        iteration: int,
        rows: slice = slice(None),
        stride: int | None = None,
    ) -> list[Rollout]:
        """Return rollouts of one iteration of training.

        All tasks are used equally often, reshuffled in each epoch; episodes are drawn without replacement, or, with a
        stride, as parts of learning histories, with replacement.

        Args:
            tasks: number of tasks; some are repeated if there are fewer.
            episodes: episodes per task in each rollout.
            rollouts: number of rollouts.
            seed: seed of the run.
            iteration: counted from 0.
            rows: which of the tasks are wanted, by default all.
            stride: rounds of a history from one rollout to the next; None to combine episodes at random.

        Raises:
            InputError: if there are too few episodes per task, or rounds in its histories.
        """
        total = self.rollout.num_tasks
        positions = torch.arange(iteration * tasks, (iteration + 1) * tasks)
        orders = {
            turn: torch.randperm(total, generator=generator(seed, "recorded tasks", turn))
            for turn in range(int(positions[0]) // total, int(positions[-1]) // total + 1)
        }
        numbers = torch.stack([orders[position // total][position % total] for position in positions.tolist()])
        stream = generator(seed, "recorded episodes", iteration)
        shape = tasks, episodes, rollouts
        columns = self._any(shape, stream) if stride is None else self._histories(shape, stride, stream)
        return [self._part(numbers[rows], chosen[rows]) for chosen in torch.split(columns, episodes, 1)]

    def _any(self, shape: tuple[int, int, int], stream: torch.Generator) -> Tensor:
        """Return different episodes of each task, ``[tasks, rollouts * episodes]``."""
        tasks, episodes, rollouts = shape
        available = self.rollout.rewards.shape[1]
        if episodes * rollouts > available:
            fewer = f"--episodes-per-task {available // rollouts} or fewer, or " if available >= rollouts else ""
            raise InputError(
                f"{self.path} has {available} episodes of each task, but an iteration needs {rollouts} x {episodes}; "
                f"use {fewer}fewer --episodes-per-trial"
            )
        return torch.rand(tasks, available, generator=stream).argsort(-1)[:, : episodes * rollouts]

    def _histories(self, shape: tuple[int, int, int], stride: int, stream: torch.Generator) -> Tensor:
        """Return parts of histories, ``[tasks, rollouts * episodes]``: each a random one, from a random round on."""
        tasks, episodes, rollouts = shape
        rounds, length = self.description.rounds, stride * (rollouts - 1) + 1
        if length > rounds:
            raise InputError(
                f"{self.path} has learning histories of {rounds} rounds, but {rollouts} episodes with a stride of "
                f"{stride} need {length}; use fewer --episodes-per-trial or a smaller --stride, or record more rounds "
                "with metarl collect --steps"
            )
        together = self.rollout.rewards.shape[1] // rounds
        histories = torch.randint(together, (tasks, 1, episodes), generator=stream)
        first = torch.randint(rounds - length + 1, (tasks, 1, episodes), generator=stream)
        wanted = first + stride * torch.arange(rollouts).view(1, -1, 1)
        return (wanted * together + histories).flatten(1)

    def _part(self, rows: Tensor, columns: Tensor) -> Rollout:
        """Return the episodes ``columns`` ``[n, E]`` of the tasks ``rows`` ``[n]``."""
        device = self.rollout.rewards.device
        rows, columns = rows.to(device), columns.to(device)
        names = (*_recorded_steps(self.rollout), "final_observations")
        picked = {name: getattr(self.rollout, name)[rows[:, None], columns] for name in names}
        return Rollout(tasks=self.rollout.tasks[rows], **picked)


def save_recorded(path: Path | str, description: Description, shards: Iterable[Rollout]) -> None:
    """Save rollouts to a folder, one shard each.

    Args:
        path: the folder, new or empty.
        description: their metadata.
        shards: rollouts with the same number of episodes per task.

    Raises:
        InputError: if the folder cannot be written to, or is not empty.
    """
    folder = Path(path)
    if not make_folder(folder, "the recorded episodes"):
        raise InputError(f"{folder} is not empty; choose another --out")
    written = []
    for number, rollout in enumerate(shards):
        file = f"shard-{number:05}.npz"
        sha256 = write_tensors(folder / file, _tensors(rollout))
        written.append(Shard(file, rollout.num_tasks, rollout.env_steps, sha256))
    content = {"format": FORMAT, "description": asdict(description), "shards": [asdict(shard) for shard in written]}
    write_json(folder / MANIFEST, content)


def load_recorded(path: Path | str, device: torch.device | str = "cpu") -> RecordedData:
    """Load recorded episodes into memory.

    Raises:
        InputError: if the folder is not a data set of this version of metarl, or a shard is missing or damaged.
    """
    folder = Path(path)
    try:
        text = (folder / MANIFEST).read_bytes()
        content = json.loads(text)
        known = content["format"] == FORMAT
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder} contains no recorded episodes (no {MANIFEST}); record some with metarl collect"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{folder / MANIFEST} is damaged or was not written by metarl; the episodes cannot be read"
        ) from None
    if not known:
        raise InputError(
            f"{folder / MANIFEST} has the format {content['format']!r}; this version of metarl reads {FORMAT!r}"
        )
    try:
        description = adapter(Description).validate_python(content["description"])
        shards = adapter(list[Shard]).validate_python(content["shards"])
    except (KeyError, ValidationError):
        raise InputError(
            f"{folder / MANIFEST} is damaged or was not written by metarl; the episodes cannot be read"
        ) from None
    if not shards:
        raise InputError(f"{folder} contains no episodes; record some with metarl collect")
    rollouts = [_rollout(read_tensors(folder / shard.file, shard.sha256), shard.tasks) for shard in shards]
    fingerprint = hashlib.sha256(text).hexdigest()
    return RecordedData(_of_all_tasks(rollouts).to(device), description, fingerprint, folder)


def _tensors(rollout: Rollout) -> dict[str, Tensor]:
    tensors = {name: getattr(rollout, name) for name in (*_recorded_steps(rollout), "final_observations")}
    return tensors | {f"{TASK}{name}": value for name, value in rollout.tasks.items()}


def _rollout(tensors: dict[str, Tensor], count: int) -> Rollout:
    tasks = {name.removeprefix(TASK): value for name, value in tensors.items() if name.startswith(TASK)}
    own: dict[str, Any] = {name: value for name, value in tensors.items() if not name.startswith(TASK)}
    return Rollout(tasks=TensorDict(tasks, [count]), **own)


def side_by_side(rollouts: Sequence[Rollout]) -> Rollout:
    """Join rollouts of the same N tasks along the episode axis, without the policies' probabilities."""
    return Rollout(tasks=rollouts[0].tasks, **_joined(rollouts, 1))


def _of_all_tasks(rollouts: Sequence[Rollout]) -> Rollout:
    """Join rollouts of different tasks, with the same number of episodes per task."""
    tasks: TensorDict = TensorDict.cat([rollout.tasks for rollout in rollouts])
    return Rollout(tasks=tasks, **_joined(rollouts, 0))


def _joined(rollouts: Sequence[Rollout], axis: int) -> dict[str, Any]:
    """Join the episodes along the task axis (0) or the episode axis (1), with zeros after the ends of shorter ones."""
    longest = max(rollout.rewards.shape[2] for rollout in rollouts)
    joined = {"final_observations": torch.cat([rollout.final_observations for rollout in rollouts], axis)}
    for name in _recorded_steps(rollouts[0]):
        joined[name] = join_steps([getattr(each, name) for each in rollouts], longest, axis)
    return joined


def _recorded_steps(rollout: Rollout) -> list[str]:
    """Return the names of the tensors ``[N, M, T, ...]`` that are recorded."""
    return [*STEPS, *(name for name in OF_THE_FAMILY if getattr(rollout, name) is not None)]
