"""Recorded episodes as Minari data sets, the field's format for offline data (extra ``minari``).

A Minari data set is a list of episodes of one environment. The task of each episode is in its infos: ``task_number``,
and the task's parameters under ``task``. Actions are in the environment's units there, and in the policy's units here.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict

from metarl.errors import InputError
from metarl.families.family import TaskFamily
from metarl.families.spaces import unit_range, unit_scale
from metarl.rollouts.rollout import Episode, Rollout
from metarl.run.recorded import Description, RecordedData, save_recorded

NUMBER, TASK, SUCCESS = "task_number", "task", "success"


def to_minari(data: RecordedData, family: TaskFamily, dataset_id: str, **metadata: Any) -> Any:
    """Write recorded episodes as a Minari data set, in Minari's data folder (``MINARI_DATASETS_PATH``).

    Args:
        data: the episodes.
        family: family they were recorded on.
        dataset_id: Minari id such as ``pearl/half-cheetah-vel-v0``.
        metadata: further arguments of ``minari.create_dataset_from_buffers``, such as ``author``.

    Returns:
        The ``minari.MinariDataset``.

    Raises:
        InputError: if Minari is not installed, the data set exists already, or the episodes are from another family.
    """
    minari = _minari()
    if data.description.family != family.name:
        raise InputError(f"{data.path} was recorded on {data.description.family}, not on {family.name}")
    if dataset_id in minari.list_local_datasets():
        raise InputError(f"Minari already has a data set {dataset_id}; choose another name")
    known = {
        "algorithm_name": str(data.description.made_by.get("learner", "metarl")),
        "description": f"{family.name}, recorded by metarl",
        "data_format": "hdf5",
    }
    return minari.create_dataset_from_buffers(
        dataset_id,
        _buffers(data, family),
        observation_space=family.observation_space,
        action_space=family.action_space,
        **{**known, **metadata},
    )


def _buffers(data: RecordedData, family: TaskFamily) -> list[Any]:
    """Return the episodes as Minari buffers."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    scale = unit_scale(family.action_space, torch.device("cpu"))
    buffers: list[Any] = []
    for number, episodes in enumerate(data.rollout.episodes()):
        task = {str(name): value[number].cpu().numpy() for name, value in data.rollout.tasks.items()}
        for episode in episodes:
            ends = np.arange(len(episode.rewards)) == len(episode.rewards) - 1
            buffer = EpisodeBuffer(
                id=len(buffers),
                observations=episode.observations,
                actions=scale(torch.from_numpy(episode.actions)).numpy(),
                rewards=episode.rewards,
                terminations=ends & episode.terminated,
                truncations=ends & (not episode.terminated),
                infos=_infos(number, task, episode),
            )
            buffers.append(buffer)
    return buffers


def _infos(number: int, task: dict[str, Any], episode: Episode) -> dict[str, Any]:
    """Return an episode's infos, with an entry for the reset and one for each step, as Minari expects."""
    length = len(episode.observations)
    infos: dict[str, Any] = {NUMBER: np.full(length, number)}
    if task:
        infos[TASK] = {name: np.repeat(value[None], length, 0) for name, value in task.items()}
    if episode.success is not None:
        infos[SUCCESS] = np.concatenate([[False], episode.success])
    return infos


def from_minari(dataset: Any, family: TaskFamily, path: Path | str) -> None:
    """Convert a Minari data set to recorded episodes for ``--data``.

    Episodes without a ``task_number`` in their infos count as one task. Every task keeps as many episodes as the task
    with the fewest. Which part of a split the tasks are from is unknown, and cannot be checked later.

    Args:
        dataset: a ``minari.MinariDataset``, or the id of one.
        family: family of the observations, actions and tasks.
        path: folder for the recorded episodes, new or empty.

    Raises:
        InputError: if Minari is not installed or has no such data set, or its spaces differ from the family's.
    """
    minari = _minari()
    if isinstance(dataset, str):
        try:
            dataset = minari.load_dataset(dataset)
        except FileNotFoundError:
            raise InputError(f"Minari has no local data set {dataset}; get it with minari download {dataset}") from None
    for name in ("observation_space", "action_space"):
        found, wanted = getattr(dataset, name), getattr(family, name)
        if found != wanted:
            raise InputError(
                f"the {name} of the Minari data set {dataset.id} is {found}, but that of {family.name} is {wanted}"
            )
    rollout = _rollout(dataset, family)
    save_recorded(path, Description.of(family, made_by={"minari": dataset.id}), [rollout])


def _rollout(dataset: Any, family: TaskFamily) -> Rollout:
    """Join the episodes of a Minari data set, task by task."""
    to_units = unit_range(family.action_space)
    episodes: dict[int, list[Episode]] = {}
    tasks: dict[int, dict[str, np.ndarray]] = {}
    for each in dataset.iterate_episodes():
        infos = each.infos or {}
        number = int(infos[NUMBER][0]) if NUMBER in infos else 0
        success = infos[SUCCESS][1:] if SUCCESS in infos else None
        actions = to_units(torch.from_numpy(each.actions)).numpy()
        episode = Episode(each.observations, actions, each.rewards, bool(each.terminations[-1]), success)
        episodes.setdefault(number, []).append(episode)
        tasks[number] = {name: value[0] for name, value in infos.get(TASK, {}).items()}
    numbers = sorted(episodes)
    fewest = min(len(each) for each in episodes.values())
    parameters = {
        name: torch.from_numpy(np.stack([tasks[number][name] for number in numbers])) for name in tasks[numbers[0]]
    }
    return Rollout.from_episodes(
        [episodes[number][:fewest] for number in numbers], TensorDict(parameters, [len(numbers)])
    )


def _minari() -> Any:
    try:
        import minari
    except ImportError:
        raise InputError("Minari data sets need the extra minari: pip install 'metarl-gym[minari]'") from None
    return minari
