"""Gridworlds in words."""

from collections.abc import Callable

import torch
from torch import Tensor

from metarl.envs.grid.engine import DOOR, GOAL, KEY, WALL, GridFamily, SightedGrid

MOVE_NAMES = ("stay", "up", "right", "down", "left")
THINGS = {WALL: "wall", GOAL: "goal", KEY: "key", DOOR: "door"}
GOAL_RULE = (
    "One of the cells is the goal, the same in every episode: a step that ends on it gives 1, every other step -0.1."
)


def map_rules(family: GridFamily) -> str:
    """Return what a gridworld's cells and moves are, and how long an episode is."""
    return (
        f"You walk on a map of {family.size} x {family.size} cells (x, y), counted from 0; up is +y. Every episode "
        f"starts at (0, 0) and has at most {family.horizon} steps. A move into a wall or off the map has no effect."
    )


def sight_rules(family: SightedGrid) -> str:
    """Return what is observed."""
    if family.view is None:
        return "You see your own cell only." if not family.on_map else "You see the whole map."
    return f"You see {family.view // 2} cells to each side, listed as (x, y) relative to your own cell."


def place(cell: Tensor) -> str:
    """Return a cell (x, y) ``[2]`` as where the agent is."""
    return f"You are at {_cell(cell.tolist())}."


def sight(family: SightedGrid, observation: Tensor, name: Callable[[int], str] = lambda code: THINGS[code]) -> str:
    """Return a sighted grid's observation in words, without its flags.

    Args:
        family: whose observation it is.
        observation: ``[n]``.
        name: returns what a cell's code stands for; by default the only thing that has it.
    """
    if family.view is None:
        bits, side, start, shift = family.on_map, family.size, family.hand, 0
        lines = [place(family.cells(observation[: family.hand].argmax(-1)))]
    else:
        bits, side, start, shift = family.in_window, family.view, 0, family.view // 2
        lines = []
    if not bits:
        return lines[0]
    count = (side**2 + family.carries) * len(bits)
    planes = observation[start : start + count].view(len(bits), -1).long()
    codes = (planes * torch.tensor(bits)[:, None]).sum(0).tolist()
    found: dict[str, list[str]] = {}
    for number, code in enumerate(codes[: side**2]):
        if code:
            found.setdefault(name(code), []).append(_cell([number % side - shift, number // side - shift]))
    seen = "; ".join(f"{what} {' '.join(cells)}" for what, cells in found.items())
    lines.append(f"You see: {seen}." if seen else "You see nothing.")
    if family.carries and codes[-1]:
        lines.append(f"You carry a {name(codes[-1])}.")
    return " ".join(lines)


def _cell(cell: list[int] | list[float]) -> str:
    return f"({int(cell[0])}, {int(cell[1])})"
