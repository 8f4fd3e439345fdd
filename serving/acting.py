"""Acting for many tasks at once: what is asked within a short window is answered by one forward pass."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.episodes import RunningEpisodes
from metarl.joint_acting import Choice, act_together
from metarl.serving.metrics import Metrics
from metarl.serving.served import Served


@dataclass
class _Asked:
    running: RunningEpisodes
    observations: Tensor
    answer: "asyncio.Future[Choice]"


class Acting:
    """Collects what is asked and answers it together, in a thread of its own.

    The first one waits for ``window`` seconds; who comes while a pass is computed is in the next one.

    Args:
        served: the learner.
        window: seconds.
        metrics: where sizes of passes are counted.
    """

    def __init__(self, served: Served, window: float, metrics: Metrics) -> None:
        self._served, self._window, self._metrics = served, window, metrics
        self._thread = torch_thread("acting")
        self._thread.submit(lambda: served.width).result()  # tried here, so that the first request need not wait for it
        self._waiting: list[_Asked] = []
        self._busy = False

    async def choose(self, running: RunningEpisodes, observations: Tensor) -> Choice:
        """Choose actions in the running episodes of a task, at observations ``[1, E, *observation]``."""
        loop = asyncio.get_running_loop()
        asked = _Asked(running, observations, loop.create_future())
        self._waiting.append(asked)
        if not self._busy:
            self._busy = True
            loop.call_later(self._window, self._begin)
        return await asked.answer

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, []
        self._metrics.batch.observe(len(batch))
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._act, batch)
        work.add_done_callback(lambda done: self._answer(batch, done))

    def _act(self, batch: list[_Asked]) -> list[Choice]:
        running, observations = [each.running for each in batch], [each.observations for each in batch]
        return act_together(self._served.learner, running, observations, self._served.width)

    def _answer(self, batch: list[_Asked], done: "asyncio.Future[list[Choice]]") -> None:
        error = done.exception()
        for number, each in enumerate(batch):
            if each.answer.cancelled():
                continue
            if error is not None:
                each.answer.set_exception(error)
            else:
                each.answer.set_result(done.result()[number])
        if self._waiting:
            self._begin()
        else:
            self._busy = False


def torch_thread(name: str) -> ThreadPoolExecutor:
    """Return a thread for torch's work, on one core: the same sums each time, and the others stay free."""
    return ThreadPoolExecutor(1, name, initializer=torch.set_num_threads, initargs=(1,))
