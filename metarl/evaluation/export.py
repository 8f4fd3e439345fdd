"""A trained policy as a program of torch.export or ONNX: one step, from observations to actions.

The program holds what a session knows now: adapted parameters, or a belief. What acting changes, the memory of a trial,
goes in and comes out, so that whoever runs the program keeps it.
"""

import warnings
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.devices.graphs import copy_of, paths_of, tensors_of
from metarl.errors import InputError
from metarl.families.spaces import observed_space, unit_scale
from metarl.learning.learner import Actor, Learner
from metarl.sampling.session import Session
from metarl.storage.files import write_whole

FORMATS = (".pt2", ".onnx")


class PolicyStep(nn.Module):
    """One step of a learner in an open state of one task and R episodes.

    Args:
        learner: the learner, on the CPU.
        working: its open state, which is not changed.
        space: the action space.
        example: observations ``[R, *observation]`` with which the memory is found.

    Attributes:
        memory: what acting changes, by name: inputs and outputs.
        described: names of the tensors of the action's distribution.
    """

    def __init__(self, learner: Learner, working: Any, space: spaces.Space[Any], example: Tensor) -> None:
        super().__init__()
        self._learner, self._working = learner, working
        self._scale = unit_scale(space, torch.device("cpu"))
        # torch's exporter wants to find the parameters in the module.
        for name, value in vars(learner).items():
            if isinstance(value, nn.Module):
                self.add_module(name, value)
        tried = copy_of(working)
        versions = [tensor._version for tensor in tensors_of(tried)]
        self.described = list(vars(self._act(tried, example)[1]))
        after = zip(tensors_of(tried), versions, strict=True)
        self._changed = [number for number, (tensor, before) in enumerate(after) if tensor._version > before]
        named = list(zip(paths_of(working), tensors_of(working), strict=True))
        self.memory = dict(named[number] for number in self._changed)

    @torch.no_grad()
    def forward(self, observations: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        """Return actions in units of the action space, their distributions' tensors, and the memory after the step.

        Args:
            observations: ``[R, *observation]``.
            memory: the tensors that ``memory`` names.
        """
        working = copy_of(self._working)
        own = [tensors_of(working)[number] for number in self._changed]
        for tensor, given in zip(own, memory, strict=True):
            tensor.copy_(given)
        actions, distribution = self._act(working, observations)
        return (self._scale(actions[0]), *(tensor[0] for tensor in distribution.tensors()), *own)

    @torch.no_grad()
    def _act(self, working: Any, observations: Tensor) -> tuple[Tensor, Any]:
        """Return the most probable actions ``[1, R, *action]`` and their distributions; remember them."""
        distribution = self._learner.action_distribution(working, observations.unsqueeze(0))
        actions = distribution.mode()
        self._learner.remember(working, actions, torch.zeros(actions.shape[:2]))
        return actions, distribution


def export_policy(session: Session, path: str | Path) -> dict[str, np.ndarray]:
    """Write what a session would act with in its next episode as a program of one step.

    Inputs are ``observation`` ``[R, *observation]``, for R episodes, and the memory, by name; outputs are ``action``,
    the most probable one in units of the action space, the tensors of its distribution in units of the policy, and
    the memory after the step as ``next.NAME``. The caller writes the reward of the last action into ``trial.rewards``,
    and 1 into ``trial.starts`` at the first step of an episode.

    Args:
        session: with one task or environment; after ``adapt`` it is the adapted policy that is written.
        path: ``.pt2`` (torch.export) or ``.onnx``, which needs the extra ``onnx``.

    Returns:
        The memory at the start of the episode, by name; empty if acting changes nothing.

    Raises:
        InputError: for another extension, several tasks, a learner that cannot be exported, or if a package is missing.
    """
    path, (tasks, rows), learner = Path(path), session.shape, session.learner
    _check(learner, path)
    if tasks != 1:
        raise InputError(f"a policy is exported for one task, but this session has {tasks}; make one with tasks=1")
    working = learner.open(session.state, rows, torch.Generator(), deterministic=True)
    space = observed_space(session.family.observation_space)
    example = torch.as_tensor(np.zeros((rows, *(space.shape or ())), space.dtype))
    step = PolicyStep(learner, working, session.family.action_space, example).eval()
    arguments = (example, *(value.clone() for value in step.memory.values()))
    inputs = ["observation", *step.memory]
    outputs = ["action", *step.described, *(f"next.{name}" for name in step.memory)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about its own exporter
        _write(torch.export.export(step, arguments), path, inputs, outputs)
    return {name: value.numpy().copy() for name, value in step.memory.items()}


def _write(program: torch.export.ExportedProgram, path: Path, inputs: list[str], outputs: list[str]) -> None:
    if path.suffix == ".pt2":
        about = {"inputs.txt": "\n".join(inputs), "outputs.txt": "\n".join(outputs)}
        saved = BytesIO()  # torch wants a name that ends in .pt2, which that of an unfinished file does not
        torch.export.save(program, saved, extra_files=about)
        write_whole(path, lambda part: part.write_bytes(saved.getvalue()))
        return
    model = torch.onnx.export(program, input_names=inputs, output_names=outputs, dynamo=True, verbose=False)
    assert model is not None
    write_whole(path, model.save)


def _check(learner: Learner, path: Path) -> None:
    kind = type(learner)
    if path.suffix not in FORMATS:
        raise InputError(f"a policy is exported to a {' or '.join(FORMATS)} file, not to {path}")
    if path.suffix == ".onnx" and find_spec("onnxscript") is None:
        raise InputError("ONNX needs packages: pip install 'metarl-gym[onnx]'; or export to a .pt2 file")
    if not kind.capturable or kind.baseline:
        raise InputError(f"{kind.name} cannot be exported, as it has no policy that is a function of tensors")
    if kind.observe is not Actor.observe and kind.remember is Learner.remember:
        raise InputError(f"{kind.name} cannot be exported: it has a method observe, but no method remember")
