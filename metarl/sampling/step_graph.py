"""A step of an actor in its worlds as one graph, recorded once per run."""

import torch
from torch import Tensor

from metarl.devices.graphs import RECORDERS, Graph
from metarl.numerics.noise import source
from metarl.sampling.episodes import OF_THE_FAMILY, RunningEpisodes
from metarl.worlds.vector_env import TaskVectorEnv


class StepLoop:
    """Steps environments and the episodes that run in them together."""

    def __init__(self, env: TaskVectorEnv, running: RunningEpisodes) -> None:
        self._env, self._running = env, running

    def advance(self, observations: Tensor) -> Tensor:
        """Take one step from observations ``[B, ...]``; return those after it."""
        actions = self._running.act(self._rows(observations))
        observations, rewards, terminated, truncated, info = self._env.step(actions.flatten(0, 1))
        outcome = [self._rows(values) for values in (observations, rewards, terminated, truncated)]
        known = {name: self._rows(info[name]) for name in OF_THE_FAMILY if name in info}
        if "success" in known:  # some worlds report it as a number
            known["success"] = known["success"].bool()
        self._running.record(*outcome, **known)
        return observations

    def _rows(self, values: Tensor) -> Tensor:
        """Return values ``[B, ...]`` as ``[N, E, ...]``."""
        return values.view(*self._running.alive.shape, *values.shape[1:])


class StepGraph:
    """The steps of episodes, replayed from a graph.

    The graph is bound to the memory of episodes that it keeps: those of a collection are copied there, with their
    parameters or memories, and their outcome is copied out. The very first step is taken from Python, which loads its
    kernels and allocates what it stores; then the graph is recorded.

    Args:
        env: that the episodes run in.
        running: episodes of the first collection.
    """

    def __init__(self, env: TaskVectorEnv, running: RunningEpisodes) -> None:
        self._env, self._kept = env, running.kept()
        self._loop = StepLoop(env, self._kept)
        self._observations: Tensor | None = None
        self._graph: Graph | None = None

    def fits(self, running: RunningEpisodes) -> bool:
        """Return whether episodes are like those that the graph was made for."""
        return self._kept.is_like(running)

    def run(self, running: RunningEpisodes, observations: Tensor, steps: int) -> None:
        """Take all steps of episodes that start at observations ``[B, ...]``."""
        self._kept.start_as(running)
        taken = 0
        if self._observations is None:
            self._observations = self._loop.advance(observations).clone()
            taken = 1
        else:
            self._observations.copy_(observations)
        if self._graph is None and taken < steps:
            record = RECORDERS[self._env.device.type]
            self._graph = record(self._advance, [source(self._kept.noise), source(self._env.generator)])
        for _ in range(taken, steps):
            assert self._graph is not None
            self._graph.replay()
        running.take_over(self._kept, steps)

    @torch.no_grad()
    def _advance(self) -> None:
        assert self._observations is not None
        self._observations.copy_(self._loop.advance(self._observations))
