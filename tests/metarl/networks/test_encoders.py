"""Encoders: which one is chosen, what it returns, and what is refused."""

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.errors import InputError
from metarl.families.spaces import features
from metarl.networks.encoders import ENCODERS, Convolution, Flat, OneHot, make_encoder, register_encoder

PICTURE = spaces.Box(0, 255, (9, 7, 3), np.uint8)


def sampled(space: spaces.Space[Any], *axes: int) -> Tensor:
    space.seed(0)
    elements = np.stack([space.sample() for _ in range(int(np.prod(axes)))])
    return torch.as_tensor(elements).view(*axes, *(space.shape or ()))


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (PICTURE, Convolution),
        (spaces.Box(0, 1, (9, 7, 3)), Flat),
        (spaces.Box(0, 255, (9, 7), np.uint8), Flat),
        (spaces.Discrete(3), Flat),
        (spaces.Dict({"picture": PICTURE}), Flat),
    ],
)
def test_images_get_a_convolution_and_all_others_are_flat(space: spaces.Space[Any], kind: type[nn.Module]) -> None:
    made = make_encoder("auto", space)
    assert isinstance(made.encoder, kind)
    assert made.learned == (kind is Convolution)


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2, 3)), spaces.Discrete(3, start=2), PICTURE])
def test_flat_observations_are_their_features_to_the_bit(space: spaces.Space[Any]) -> None:
    observations, made = sampled(space, 2, 5), make_encoder("flat", space)
    assert torch.equal(made(observations), features(space, observations))
    assert made.size == spaces.flatdim(space)
    assert not list(made.parameters())


def test_integers_of_a_box_are_one_hot() -> None:
    made = make_encoder("one-hot", spaces.Box(-1, 1, (2,), np.int8))
    found = made(torch.tensor([[[-1, 1]]], dtype=torch.int8))
    assert found.tolist() == [[[1, 0, 0, 0, 0, 1]]]
    assert made.size == 6


@pytest.mark.parametrize(
    "shape", [(9, 7, 3), (3, 9, 7), (1, 8, 8), (8, 8, 1), (84, 84, 3), (5, 5, 3), (1, 1, 1), (15, 15, 4), (4, 4, 4)]
)
def test_images_of_every_size_are_read_with_channels_first_or_last(shape: tuple[int, ...]) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    assert make_encoder("conv", space)(sampled(space, 2, 3)).shape == (2, 3, 64)
    assert make_encoder("spatial-softmax", space)(sampled(space, 2, 3)).shape == (2, 3, 32)


@pytest.mark.parametrize("name", ["conv", "spatial-softmax"])
def test_channels_first_or_last_are_the_same_picture(name: str) -> None:
    last, first = make_encoder(name, PICTURE), make_encoder(name, spaces.Box(0, 255, (3, 9, 7), np.uint8))
    first.load_state_dict(last.state_dict())
    images = sampled(PICTURE, 4)
    torch.testing.assert_close(first(images.permute(0, 3, 1, 2)), last(images))


def test_every_pixel_reaches_the_outputs() -> None:
    torch.manual_seed(0)
    made = make_encoder("conv", PICTURE)
    pixels = torch.rand(1, 9, 7, 3, requires_grad=True)
    made(pixels * 255).sum().backward()
    assert pixels.grad is not None
    assert (pixels.grad.abs().sum(-1) > 0).float().mean() > 0.9


def test_equal_images_are_encoded_once() -> None:
    made, few = make_encoder("conv", PICTURE), sampled(PICTURE, 3)
    read: list[int] = []
    made.encoder.register_forward_pre_hook(lambda _, given: read.append(len(given[0])))
    many = few[torch.arange(90) % 3].view(9, 10, 9, 7, 3)
    torch.testing.assert_close(made(many), made(few)[torch.arange(90) % 3].view(9, 10, 64))
    assert read == [3, 3]


def spots(brightness: int = 240) -> Tensor:
    """Return pictures of 8 x 8 pixels with a bright pixel in each place, ``[64, 8, 8, 1]``."""
    return (brightness * torch.eye(64)).to(torch.uint8).view(64, 8, 8, 1)


def test_positions_are_near_each_other_for_near_places() -> None:
    torch.manual_seed(0)
    made = make_encoder("spatial-softmax", spaces.Box(0, 255, (8, 8, 1), np.uint8))
    positions = made(spots())
    assert positions.abs().max() <= 1
    places = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))
    far, between = torch.pdist(places), torch.pdist(positions)
    assert torch.corrcoef(torch.stack([far, between]))[0, 1] > 0.8


def test_positions_do_not_depend_on_brightness() -> None:
    torch.manual_seed(0)
    made = make_encoder("spatial-softmax", spaces.Box(0, 255, (8, 8, 1), np.uint8))
    torch.testing.assert_close(made(spots(60)), made(spots(240)), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("name", "space", "message"),
    [
        (
            "spatial-softmax",
            spaces.Discrete(3),
            "spatial-softmax needs images .uint8 with three axes., not Disc.*; use flat",
        ),
        ("conv", spaces.Box(0, 1, (9, 7, 3)), "conv needs images .uint8 with three axes., not Box.*; use flat"),
        ("one-hot", spaces.Box(0, 1, (2,)), "one-hot needs integers, not Box.*; use flat"),
        ("cnov", PICTURE, "no encoder is called 'cnov'; did you mean conv"),
        ("flat", spaces.Text(3), "no learner can observe Text"),
        ("no_such_module:Mine", PICTURE, "cannot import 'no_such_module' for the encoder 'no_such_module:Mine'"),
        ("own_encoders:Missing", PICTURE, "own_encoders has no torch.nn.Module called 'Missing'"),
        ("own_encoders:Sizeless", PICTURE, "cannot be constructed .*; its class must take the observation space"),
        ("own_encoders:Argless", PICTURE, "cannot be constructed .*; its class must take the observation space"),
        ("own_encoders:Wrong", PICTURE, r"must map \[2, 9, 7, 3\] to float32 \[2, 5\], not float32 \[2, 3\]"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(
    name: str, space: spaces.Space[Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "own_encoders", own_encoders())
    with pytest.raises(InputError, match=message) as refusal:
        make_encoder(name, space)
    assert "\n" not in str(refusal.value)


class Mine(nn.Module):
    """The mean of each channel, times what is learned."""

    def __init__(self, space: spaces.Box) -> None:
        super().__init__()
        self.size = space.shape[-1]
        self.factors = nn.Parameter(torch.ones(self.size))

    def forward(self, images: Tensor) -> Tensor:
        return self.factors * images.float().mean((1, 2))


class Wrong(Mine):
    def __init__(self, space: spaces.Box) -> None:
        super().__init__(space)
        self.size = 5

    def forward(self, images: Tensor) -> Tensor:
        return images.float().mean((1, 2))


class Argless(nn.Module):
    pass


class Sizeless(nn.Module):
    def __init__(self, space: spaces.Box) -> None:
        super().__init__()


def own_encoders() -> ModuleType:
    module = ModuleType("own_encoders")
    vars(module).update(Mine=Mine, Wrong=Wrong, Argless=Argless, Sizeless=Sizeless)
    return module


def test_a_module_of_ones_own_is_taken_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "own_encoders", own_encoders())
    made = make_encoder("own_encoders:Mine", PICTURE)
    assert made.learned
    assert made(torch.full((2, 4, 9, 7, 3), 7, dtype=torch.uint8)).tolist() == [[[7.0] * 3] * 4] * 2


def test_a_registered_encoder_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metarl.networks.encoders.ENCODERS", type(ENCODERS)(ENCODERS.kind, ENCODERS.listing))
    register_encoder("means")(Mine)
    assert isinstance(make_encoder("means", PICTURE).encoder, Mine)


def test_one_hot_is_what_flat_makes_of_discrete_spaces() -> None:
    space = spaces.MultiDiscrete([2, 3])
    observations = sampled(space, 5)
    assert torch.equal(OneHot(space)(observations), Flat(space)(observations))
