"""Each check names the setting, what it must be, and what it was."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from metarl import validation
from metarl.errors import InputError

Word = Literal["one", "two"]


@dataclass(frozen=True)
class Settings:
    value: Any = 1


@pytest.mark.parametrize(
    ("check", "good", "bad", "message"),
    [
        (validation.require_positive, 0.1, 0.0, "value must be positive, not 0.0"),
        (validation.require_positive, 0.1, float("nan"), "value must be positive, not nan"),
        (validation.require_positive, 10**400, float("inf"), "value must be finite and positive, not inf"),
        (validation.require_not_negative, 0, -1, "value must be 0 or more, not -1"),
        (validation.require_not_negative, 0, float("nan"), "value must be 0 or more, not nan"),
        (validation.require_not_negative, 0.0, float("inf"), "value must be finite and 0 or more, not inf"),
        (validation.require_counts, 1, 0, "value must be at least 1, not 0"),
        (validation.require_unit, 1.0, 1.1, r"value must lie in \[0, 1\], not 1.1"),
        (validation.require_layers, (1, 2), (1, 0), r"value: every hidden layer needs at least one unit, not \[1, 0\]"),
    ],
)
def test_a_setting_out_of_range_is_refused(check: Any, good: Any, bad: Any, message: str) -> None:
    check(Settings(good), "value")
    with pytest.raises(InputError, match=message):
        check(Settings(bad), "value")


def test_a_word_that_is_none_of_the_known_ones_is_refused() -> None:
    validation.require_choice(Settings("two"), "value", Word)
    with pytest.raises(InputError, match="value must be one of one, two, not 'three'"):
        validation.require_choice(Settings("three"), "value", Word)


def test_a_number_of_things_below_one_is_refused() -> None:
    validation.require_count("the number of tasks", 1)
    with pytest.raises(InputError, match="the number of tasks must be at least 1, not 0"):
        validation.require_count("the number of tasks", 0)
