"""Families in words, and the wrapper that shows them to users of Gymnasium."""

from typing import Any

import gymnasium
import pytest
import torch
from gymnasium import spaces

import metarl
from metarl.envs.grid.engine import GridFamily
from metarl.errors import InputError
from metarl.families.family import FAMILIES, TaskFamily, make_family
from metarl.worlds.make_env import make_env

WORDED = [name for name, family in FAMILIES.items() if family.words is not TaskFamily.words]
WORDED = [name for name in WORDED if make_family(name).words() is not None]


def test_these_families_have_words() -> None:
    assert {"bandit", "tabular-mdp", "gridnavi", "four-rooms", "key-and-door", "rule-worlds"} == set(WORDED)


@pytest.mark.parametrize(("name", "preset"), [(name, each) for name in WORDED for each in FAMILIES[name].presets])
def test_every_observation_is_told_and_every_action_has_a_name(name: str, preset: str) -> None:
    family = make_family(name, preset)
    words = family.words()
    assert words is not None
    assert isinstance(family.action_space, spaces.Discrete)
    assert len(set(words.actions)) == len(words.actions) == family.action_space.n
    env = metarl.TextWrapper(gymnasium.make(family.env_id, preset=preset))
    told, _ = env.reset(seed=1)
    seen = {told}
    for step in range(12):
        told, _, terminated, truncated, _ = env.step(words.actions[(3 * step + 1) % len(words.actions)])
        assert told in env.observation_space
        seen.add(told)
        if terminated or truncated:
            env.reset()
    assert (len(seen) > 1) is (name != "bandit")
    if isinstance(family, GridFamily):
        assert f"{family.size} x {family.size}" in words.rules


def observe(name: str, task: dict[str, Any], actions: list[str], **settings: Any) -> str:
    """Return what is told after some actions."""
    env = metarl.TextWrapper(make_env(name, **settings, **task))
    told, _ = env.reset(seed=0)
    for action in actions:
        told, *_ = env.step(action)
    return told


def test_what_the_grids_tell() -> None:
    doors = {"key": (0, 1), "door": 0, "goal": (4, 4)}
    assert observe("gridnavi", {"goal": (3, 4)}, ["right", "up", "up"]) == "You are at (1, 2)."
    assert observe("key-and-door", doors, ["up"], size=5) == "You are at (0, 1). You have the key."
    told = observe("key-and-door", doors, ["up", "down", "right"], size=5, view=3)
    assert told == "You see: wall (-1, -1) (0, -1) (1, -1) (1, 1); door (1, 0). You have the key."
    told = observe("key-and-door", doors, ["up", "down", "right", "right"], size=5, view=3)
    assert told.endswith("You have the key. The door is open.")
    objects = torch.tensor([[0, 0], [1, 2], [2, 2]])
    rule = {"relation": 0, "objects": objects, "cells": [(1, 0), (3, 3), (0, 4)]}
    told = observe("rule-worlds", rule, [], size=5, distractors=1)
    assert told.startswith("You are at (0, 0). You see: ")
    assert told.count(";") == 2
    carrying = observe("rule-worlds", rule, ["right", "use"], size=5, distractors=1)
    name = told.split("You see: ")[1].split(" (1, 0)")[0]
    assert carrying.endswith(f"You carry a {name}.")


def test_a_name_that_no_action_has_and_a_family_without_words_are_refused() -> None:
    env = metarl.TextWrapper(gymnasium.make("metarl/Bandit-v0"))
    env.reset()
    with pytest.raises(InputError, match="there is no action 'left'; there are 0, 1, 2, 3, 4"):
        env.step("left")
    for name in ("metarl/Navigation2D-v0", "metarl/GridNaviImage-v0", "CartPole-v1"):
        with pytest.raises(InputError, match=r"does not describe itself in words; docs/language.md"):
            metarl.TextWrapper(gymnasium.make(name))
