import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pytest
from gymnasium import spaces

from metarl.envs.basic.bandit import Bandit
from metarl.envs.locomotion.velocities import HalfCheetahVel
from metarl.errors import InputError
from metarl.families.family import FAMILIES
from metarl.families.family_settings import checked_settings, explanations, not_settable, settable


@dataclass(frozen=True)
class Mixed(Bandit):
    """Fields of all kinds.

    Attributes:
        size: of it, in
            several lines.
        arms: of this one.
    """

    size: float | None = None
    kinds: tuple[str, ...] = ()
    mode: Literal["a", "b"] = "a"
    space: spaces.Dict = field(default_factory=spaces.Dict)
    table: Mapping[str, int] = field(default_factory=dict)
    shared: ClassVar[int] = 3


def test_fields_that_fit_a_command_line_are_settable() -> None:
    assert set(settable(Mixed)) == {"arms", "size", "kinds", "mode"}


def test_other_fields_have_a_reason() -> None:
    reasons = not_settable(Mixed)
    assert set(reasons) == {"horizon", "space", "table"}
    assert reasons["horizon"] == "use --horizon"
    assert "set it in Python" in reasons["space"]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_field_of_every_family_is_settable_or_has_a_reason_and_is_explained(name: str) -> None:
    family = FAMILIES[name]
    names = {each.name for each in dataclasses.fields(family)}  # type: ignore[arg-type]
    assert settable(family).keys() | not_settable(family).keys() == names
    assert settable(family).keys() <= explanations(family).keys()


def test_explanations_are_those_of_the_nearest_class() -> None:
    assert explanations(Mixed)["size"] == "of it, in several lines."
    assert explanations(Mixed)["arms"] == "of this one."
    assert "horizon" in explanations(Mixed)


def test_values_take_the_types_of_their_fields() -> None:
    given = {"size": 2, "kinds": ["x", "y"], "mode": "b"}
    assert checked_settings(Mixed, given) == {"size": 2.0, "kinds": ("x", "y"), "mode": "b"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_velocty": 2.0}, "half-cheetah-vel has no setting 'max_velocty'; it has .*'max_velocity'"),
        ({"max_velocity": "fast"}, "half-cheetah-vel: max_velocity = 'fast' is invalid"),
        ({"horizon": 3}, "half-cheetah-vel: a run cannot set horizon; use --horizon"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_settings(HalfCheetahVel, given)
