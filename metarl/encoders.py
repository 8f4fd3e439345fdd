"""Encoders: networks that turn an observation into the numbers that a learner's own networks read.

``make_encoder`` is the one place where an encoder is chosen. An encoder is a ``torch.nn.Module`` that is constructed
with the observation space, has an attribute ``size``, and turns observations ``[B, *observation]`` into float32
``[B, size]``. It is trained with the networks that read it. Observations reach it as they left the environment: pixels
are uint8 until then.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.errors import InputError
from metarl.registry import Registry, import_named
from metarl.spaces import SINGLE, features, is_image, observed_space, one_line

ENCODERS: Registry[type[nn.Module]] = Registry("encoder", "docs/networks.md")
EncoderT = TypeVar("EncoderT", bound=type[nn.Module])


def register_encoder(name: str) -> Callable[[EncoderT], EncoderT]:
    """Make an encoder known by a name; used as a class decorator."""

    def register(encoder: EncoderT) -> EncoderT:
        ENCODERS[name] = encoder
        return encoder

    return register


@register_encoder("flat")
class Flat(nn.Module):
    """The observation's numbers as they are, Discrete and MultiDiscrete ones one-hot; see ``spaces.features``.

    Args:
        space: of observations.

    Attributes:
        size: of its outputs.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        self._space, self.size = space, spaces.flatdim(space)

    def forward(self, observations: Tensor) -> Tensor:
        """Return numbers ``[..., size]`` of observations ``[..., *observation]``."""
        return features(self._space, observations)


@register_encoder("one-hot")
class OneHot(nn.Module):
    """Whole numbers one-hot, those of an integer Box too, such as the kinds of things in the cells of a map.

    Args:
        space: of observations: Discrete, MultiDiscrete or a Box of integers.

    Raises:
        InputError: for another space.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
            counts = space.high.astype(np.int64) - space.low.astype(np.int64) + 1
            space = spaces.MultiDiscrete(counts, start=space.low.astype(np.int64))
        if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            raise InputError(f"the encoder one-hot reads whole numbers, not {one_line(space)}; use flat")
        self._space, self.size = space, spaces.flatdim(space)

    def forward(self, observations: Tensor) -> Tensor:
        """Return zeros and ones ``[..., size]`` of observations ``[..., *observation]``."""
        return features(self._space, observations)


@register_encoder("conv")
class Convolution(nn.Module):
    """Two convolutions of stride 2 and a layer of 64 units, for small images.

    Weights start orthogonal with gain sqrt(2), which keeps the size of differences between images through rectified
    layers (Saxe et al. 2014; He et al. 2015); torch's own initial weights shrink them by a factor of ten.

    The shorter of an image's first and last axes are its channels, the last one if they are equal.

    Args:
        space: of observations: images.

    Raises:
        InputError: for another space.
    """

    size = 64

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        if not is_image(space):
            raise InputError(f"the encoder conv reads images, uint8 of three axes, not {one_line(space)}; use flat")
        assert space.shape is not None
        self._channels_last = space.shape[2] <= space.shape[0]
        channels, height, width = np.array(space.shape)[[2, 0, 1] if self._channels_last else [0, 1, 2]].tolist()
        # Padding keeps every size up to the last pixel: a side of n leaves (n + 1) // 2, rounded down.
        pixels = ((height + 3) // 4) * ((width + 3) // 4)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * pixels, self.size),
            nn.ReLU(),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                assert layer.bias is not None
                nn.init.orthogonal_(layer.weight, 2**0.5)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Return numbers ``[B, 64]`` of images ``[B, H, W, C]`` or ``[B, C, H, W]``."""
        pixels = images.float() / 255
        outputs: Tensor = self.layers(pixels.permute(0, 3, 1, 2) if self._channels_last else pixels)
        return outputs


class ObservationEncoder(nn.Module):
    """An encoder over observations with any axes before their own.

    Attributes:
        size: of its outputs.
        learned: whether it has parameters.

    Args:
        encoder: reads observations with one axis before their own.
        space: of observations.
    """

    def __init__(self, encoder: nn.Module, space: spaces.Space[Any]) -> None:
        super().__init__()
        self.encoder = encoder
        self.size = int(encoder.size)  # type: ignore[arg-type]
        self.learned = any(True for _ in encoder.parameters())
        self._axes = len(space.shape or ())

    def forward(self, observations: Tensor) -> Tensor:
        """Return numbers ``[..., size]`` of observations ``[..., *observation]``."""
        axes = observations.ndim - self._axes
        before, own = observations.shape[:axes], observations.shape[axes:]
        outputs: Tensor = self.encoder(observations.reshape(-1, *own))
        return outputs.view(*before, self.size)


def make_encoder(name: str, space: spaces.Space[Any]) -> ObservationEncoder:
    """Make the encoder that a configuration names.

    Args:
        name: ``flat``, ``one-hot``, ``conv``, ``auto`` (conv for images, flat for others), another registered name, or
            ``module:Class`` for a class of one's own.
        space: of observations.

    Raises:
        InputError: for an unknown name, a space that the encoder does not read, or a class that is no encoder.
    """
    seen = observed_space(space)
    chosen = ("conv" if is_image(space) else "flat") if name == "auto" else name
    if ":" not in chosen:
        return ObservationEncoder(ENCODERS.find(chosen)(seen), seen)
    module, own = chosen.rsplit(":", 1)
    given = getattr(import_named(module, f"encoder {name!r}"), own, None)
    if not (isinstance(given, type) and issubclass(given, nn.Module)):
        raise InputError(f"encoder {name!r}: {module} has no torch.nn.Module called {own!r}")
    return _tried(name, given, seen)


def _tried(name: str, encoder: type[nn.Module], space: spaces.Space[Any]) -> ObservationEncoder:
    """Make an encoder of a user's, and refuse one that does not keep the contract."""
    assert isinstance(space, SINGLE)
    try:
        made = encoder(space)
        size = made.size
    except (TypeError, AttributeError) as error:
        raise InputError(
            f"encoder {name!r} cannot be made ({error}); it is constructed with the observation space and has an "
            "attribute size"
        ) from error
    observations = torch.as_tensor(np.stack([space.sample(), space.sample()]))
    with torch.no_grad():
        outputs = made(observations)
    if outputs.shape != (2, size) or outputs.dtype != torch.float32:
        given = f"{outputs.dtype} {list(outputs.shape)}".removeprefix("torch.")
        raise InputError(f"encoder {name!r} must turn {list(observations.shape)} into float32 [2, {size}], not {given}")
    return ObservationEncoder(made, space)
