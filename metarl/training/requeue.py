"""Training for jobs that are requeued until the run is complete."""

from collections.abc import Sequence

from metarl.devices.processes import ONE_PROCESS, Processes
from metarl.errors import InputError
from metarl.run.config import TrainConfig
from metarl.run.config_file import hashed_settings
from metarl.run.directory import RunDirectory
from metarl.tracking.tracking import name_run
from metarl.training.callbacks import Callback
from metarl.training.loop_tools import StopRequest
from metarl.training.train import resume, train


def train_or_resume(
    config: TrainConfig,
    stop: StopRequest | None = None,
    processes: Processes = ONE_PROCESS,
    callbacks: Sequence[Callback] = (),
) -> RunDirectory:
    """Train a run, resume it if it exists, or do nothing if it is finished.

    So a job that is requeued after it was stopped can run the same command until the run is complete.

    Raises:
        InputError: as ``train``, and if the existing run has other settings.
        RunError: as ``train``.
    """
    out, _ = processes.from_first(lambda: name_run(config))
    directory = RunDirectory(out)
    if not processes.from_first(directory.config.exists):
        return train(config, stop, processes, callbacks)
    # Read as a configuration: a run of an older version lacks settings that have been added since.
    recorded = TrainConfig.from_json(processes.from_first(directory.read_config), config.run.device, processes)
    given, there = (hashed_settings(each.to_json()) for each in (config, recorded))
    if given != there:
        first = ("learner", "family")
        pairs = [{**dict.fromkeys(first), **own.pop("run"), **own.pop("settings"), **own} for own in (given, there)]
        name = next(name for name in pairs[0] | pairs[1] if pairs[0].get(name) != pairs[1].get(name))
        raise InputError(
            f"{out} is another run: its {name} is {pairs[1].get(name)}, not {pairs[0].get(name)}; choose another --out"
        )
    if (processes.from_first(directory.finished_iterations) or 0) >= config.run.iterations:
        return directory
    run = config.run
    return resume(out, run.iterations, run.device, stop=stop, processes=processes, callbacks=callbacks)
