"""Acting for many tasks at once: what is asked within a short window is answered by one forward pass.

A thread of its own would have to win the interpreter's lock back from the event loop after each of torch's operations,
which takes longer than a small pass. So only passes that would hold up other requests have one.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from metarl.sampling.joint_acting import Choice, act_together
from metarl.sampling.open_episodes import OpenEpisodes
from metarl.serving.metrics import Metrics
from metarl.serving.served import Served

# Seconds that a pass may hold up other requests.
QUICK = 0.005


@dataclass
class _Asked:
    running: OpenEpisodes
    observations: Tensor
    answer: "asyncio.Future[Choice]"


class Acting:
    """Collects what is asked and answers it together.

    The first one waits for ``window`` seconds; what is asked while a pass is computed is in the next one.

    Args:
        served: the learner.
        window: seconds.
        metrics: where sizes of passes are counted.
    """

    def __init__(self, served: Served, window: float, metrics: Metrics) -> None:
        self._served, self._window, self._metrics = served, window, metrics
        thread = torch_thread("acting")
        # Tried here, so that the first request need not wait for it.
        self._thread = thread if thread.submit(lambda: served.pass_seconds).result() > QUICK else None
        if self._thread is None:
            thread.shutdown()
        self._waiting: list[_Asked] = []
        self._busy = False

    async def choose(self, running: OpenEpisodes, observations: Tensor) -> Choice:
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
        if self._thread is not None:
            self._thread.shutdown()

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, []
        self._metrics.batch.observe(len(batch))
        if self._thread is None:
            self._answer(batch, self._act(batch))
            return
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._act, batch)
        work.add_done_callback(lambda done: self._answer(batch, done.result()))

    def _act(self, batch: list[_Asked]) -> list[Choice] | Exception:
        """Return the choices, or the error with which all of these requests end."""
        running, observations = [each.running for each in batch], [each.observations for each in batch]
        try:
            return act_together(self._served.learner, running, observations, self._served.width)
        except Exception as error:
            return error

    def _answer(self, batch: list[_Asked], found: list[Choice] | Exception) -> None:
        for number, each in enumerate(batch):
            if each.answer.cancelled():
                continue
            if isinstance(found, Exception):
                each.answer.set_exception(found)
            else:
                each.answer.set_result(found[number])
        if self._waiting:
            self._begin()
        else:
            self._busy = False


def torch_thread(name: str) -> ThreadPoolExecutor:
    """Return a thread for torch's work, on one core: the same sums each time, and the others stay free."""
    return ThreadPoolExecutor(1, name, initializer=torch.set_num_threads, initargs=(1,))
