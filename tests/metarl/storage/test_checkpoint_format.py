"""The bytes of a checkpoint: everything comes back as it was, and nothing else is accepted."""

import math
from collections import OrderedDict
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metarl.storage.checkpoint_format import decode, encode, find_misfit, find_not_finite
from tests.runs import same

NUMBERS = st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans() | st.none()
KEYS = st.text(max_size=3) | st.integers(-3, 3)
CONTENTS = st.recursive(
    NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
CONTENT = {"a": torch.arange(6.0).reshape(2, 3), "b": [1, (2.5, "x")], 0: {"step": torch.tensor(3)}, "n": None}


@given(st.dictionaries(KEYS, CONTENTS, max_size=4))
def test_plain_values_come_back_as_they_were(content: dict[Any, Any]) -> None:
    assert decode(encode(content)) == content


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_tensors_come_back_with_dtype_shape_and_bits(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 9).to(dtype)
    found = decode(encode({"x": tensor, "y": tensor}))["y"]
    assert (found.dtype, found.shape) == (dtype, tensor.shape)
    assert torch.equal(found, tensor)


def test_a_tensor_that_is_not_contiguous_comes_back() -> None:
    tensor = torch.arange(6.0).reshape(2, 3).T
    assert torch.equal(decode(encode({"x": tensor}))["x"], tensor)


def test_kinds_of_containers_and_keys_come_back() -> None:
    found = decode(encode(OrderedDict(CONTENT)))
    assert same(found, CONTENT)
    assert isinstance(found["b"][1], tuple)
    assert list(found) == ["a", "b", 0, "n"]


def test_what_comes_back_can_be_changed() -> None:
    decode(encode(CONTENT))["a"].add_(1)


def test_other_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="a checkpoint cannot hold object"):
        encode({"x": object()})


def test_every_changed_byte_is_found() -> None:
    whole = encode(CONTENT)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(ValueError, match=r"SHA-256|does not begin"):
            decode(bytes(changed))


def test_every_truncation_is_found() -> None:
    whole = encode(CONTENT)
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"SHA-256|does not begin"):
            decode(whole[:length])


@pytest.mark.parametrize("value", [math.nan, math.inf, torch.tensor([1.0, math.nan]), torch.tensor(-math.inf)], ids=str)
def test_what_is_not_finite_is_found_where_it_is(value: Any) -> None:
    assert find_not_finite(CONTENT) is None
    assert find_not_finite({"a": {"b": [1.0, value]}}) == "a/b/1"


OWN = {"params": {"w": torch.zeros(2, 3)}, "updates": 0, "moments": {}, "kept": torch.empty(0, 4), "scale": 1.0}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({}, None),
        ({"moments": {0: {"step": torch.tensor(1.0)}}, "kept": torch.zeros(9, 4)}, None),
        ({"params": {"w": torch.zeros(3, 2)}}, "/params/w"),
        ({"params": {"w": torch.zeros(2, 3, dtype=torch.float64)}}, "/params/w"),
        ({"params": {"w": [0.0] * 6}}, "/params/w"),
        ({"params": {"v": torch.zeros(2, 3)}}, "/params/v"),
        ({"params": {}}, "/params/w"),
        ({"updates": -1}, "/updates"),
        ({"updates": 1.0}, "/updates"),
        ({"scale": 1}, "/scale"),
        ({"kept": torch.zeros(9, 5)}, "/kept"),
        ({"other": 1}, "/other"),
    ],
    ids=str,
)
def test_a_state_of_another_kind_does_not_fit(change: dict[str, Any], where: str | None) -> None:
    assert find_misfit(OWN, {**OWN, **change}) == where
