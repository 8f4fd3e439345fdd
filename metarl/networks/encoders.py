"""Encoders: networks that turn an observation into the input features of a learner's networks.

``make_encoder`` is the one place where an encoder is chosen. An encoder is a ``torch.nn.Module`` that is constructed
with the observation space, has an attribute ``size``, and maps observations ``[B, *observation]`` to float32
``[B, size]``. It is trained together with the networks that use it. Its input is what the environment returned: pixels
are uint8 until then.
"""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from metarl.errors import InputError
from metarl.families.spaces import SINGLE, features, is_image, observed_space, one_line
from metarl.registry import Registry, import_named

ENCODERS: Registry[type[nn.Module]] = Registry("encoder", "docs/networks.md")
# Batches of fewer images are encoded as they are.
MANY_IMAGES = 64
EncoderT = TypeVar("EncoderT", bound=type[nn.Module])


def register_encoder(name: str) -> Callable[[EncoderT], EncoderT]:
    """Register an encoder under a name; used as a class decorator."""

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
    """Integers one-hot, including those of an integer Box, such as the kinds of objects in the cells of a map.

    Args:
        space: of observations: Discrete, MultiDiscrete or an integer Box.

    Raises:
        InputError: for another space.
    """

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
            counts = space.high.astype(np.int64) - space.low.astype(np.int64) + 1
            space = spaces.MultiDiscrete(counts, start=space.low.astype(np.int64))
        if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            raise InputError(f"the encoder one-hot needs integers, not {one_line(space)}; use flat")
        self._space, self.size = space, spaces.flatdim(space)

    def forward(self, observations: Tensor) -> Tensor:
        """Return zeros and ones ``[..., size]`` of observations ``[..., *observation]``."""
        return features(self._space, observations)


class ImageEncoder(nn.Module):
    """Base class of image encoders: the order of the axes, and the scaling of pixels.

    The shorter of an image's first and last axes are its channels, the last one if they are equal.

    Args:
        space: of observations: images.

    Attributes:
        channels: of an image.
        height: of an image, in pixels.
        width: of an image, in pixels.

    Raises:
        InputError: for another space.
    """

    name: ClassVar[str]

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__()
        if not is_image(space):
            raise InputError(
                f"the encoder {self.name} needs images (uint8 with three axes), not {one_line(space)}; use flat"
            )
        assert space.shape is not None
        self._channels_last = space.shape[2] <= space.shape[0]
        axes = [2, 0, 1] if self._channels_last else [0, 1, 2]
        self.channels, self.height, self.width = (space.shape[axis] for axis in axes)

    def pixels(self, images: Tensor) -> Tensor:
        """Return images ``[B, H, W, C]`` or ``[B, C, H, W]`` scaled to [0, 1], ``[B, C, H, W]``."""
        numbers = images.float() / 255
        return numbers.permute(0, 3, 1, 2) if self._channels_last else numbers


@register_encoder("conv")
class Convolution(ImageEncoder):
    """Two convolutions of stride 2 and a layer of 64 units, for small images.

    Its last layer has separate weights for each position, so it does not generalise to positions that training did not
    visit: tasks that differ in where objects are need many positions in training, or ``spatial-softmax``.

    Args:
        space: of observations: images.
    """

    name: ClassVar[str] = "conv"
    size = 64

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__(space)
        # With this padding a side of n becomes (n + 1) // 2, so no pixel is cut off at any size.
        positions = ((self.height + 3) // 4) * ((self.width + 3) // 4)
        self.layers = nn.Sequential(
            nn.Conv2d(self.channels, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * positions, self.size),
            nn.ReLU(),
        )
        init_orthogonal(self.layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return features ``[B, 64]`` of images ``[B, H, W, C]`` or ``[B, C, H, W]``."""
        outputs: Tensor = self.layers(self.pixels(images))
        return outputs


@register_encoder("spatial-softmax")
class SpatialSoftmax(ImageEncoder):
    """Positions of 16 features in an image, which change smoothly as objects move.

    After Levine et al. (2016), with the learned temperature of Finn et al. (2016). Two convolutions compute a map for
    each feature; the softmax over the map is a distribution over positions, and its mean is the output. Maps are
    normalised to mean 0 and standard deviation 1, so that the softmax is as sharp for dark images and small weights.

    Args:
        space: of observations: images.
    """

    name: ClassVar[str] = "spatial-softmax"
    features, sharpness = 16, 3.0
    size = 2 * features
    positions: Tensor

    def __init__(self, space: spaces.Space[Any]) -> None:
        super().__init__(space)
        self.layers = nn.Sequential(
            nn.Conv2d(self.channels, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, self.features, 3, padding=1),
            nn.Flatten(2),
        )
        init_orthogonal(self.layers)
        self.sharpening = nn.Parameter(torch.tensor(self.sharpness))
        rows, columns = (torch.linspace(-1, 1, (side + 1) // 2) for side in (self.height, self.width))
        self.register_buffer("positions", torch.cartesian_prod(rows, columns), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (y, x) in [-1, 1] of each feature, ``[B, 32]``, of images ``[B, H, W, C]`` or ``[B, C, H, W]``."""
        maps: Tensor = self.layers(self.pixels(images))
        maps = nn.functional.layer_norm(maps, maps.shape[-1:], eps=1e-8)
        return ((self.sharpening * maps).softmax(-1) @ self.positions).flatten(1)


def init_orthogonal(layers: nn.Module) -> None:
    """Make weights orthogonal with gain sqrt(2), and biases zero.

    This preserves the size of differences between images through ReLU layers (Saxe et al. 2014; He et al. 2015);
    torch's default initialisation shrinks them by a factor of ten.
    """
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(layer.weight, 2**0.5)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


class ObservationEncoder(nn.Module):
    """An encoder applied to observations with any number of batch axes.

    Attributes:
        size: of its outputs.
        learned: whether it has parameters.

    Args:
        encoder: reads observations with one batch axis.
        space: of observations.
    """

    def __init__(self, encoder: nn.Module, space: spaces.Space[Any]) -> None:
        super().__init__()
        self.encoder = encoder
        self.size = int(encoder.size)  # type: ignore[arg-type]
        self.learned = any(True for _ in encoder.parameters())
        self._axes = len(space.shape or ())

    def forward(self, observations: Tensor) -> Tensor:
        """Return features ``[..., size]`` of observations ``[..., *observation]``."""
        axes = observations.ndim - self._axes
        before, own = observations.shape[:axes], observations.shape[axes:]
        flat = observations.reshape(-1, *own)
        outputs: Tensor = self._read_once(flat) if self._repeats(flat) else self.encoder(flat)
        return outputs.view(*before, self.size)

    def _repeats(self, images: Tensor) -> bool:
        """Return whether to look for equal images: only in large batches on the CPU; elsewhere the host would wait."""
        return isinstance(self.encoder, ImageEncoder) and images.device.type == "cpu" and len(images) >= MANY_IMAGES

    def _read_once(self, images: Tensor) -> Tensor:
        """Encode equal images once: gridworlds have few distinct ones, and comparing costs a tenth of encoding."""
        different, which = torch.unique(images.flatten(1), dim=0, return_inverse=True)
        return self.encoder(different.view(-1, *images.shape[1:]))[which]  # type: ignore[no-any-return]


def make_encoder(name: str, space: spaces.Space[Any]) -> ObservationEncoder:
    """Make an encoder by name.

    Args:
        name: ``flat``, ``one-hot``, ``conv``, ``spatial-softmax``, ``auto`` (conv for images, flat for others), another
            registered name, or ``module:Class`` for a class of your own.
        space: of observations.

    Raises:
        InputError: for an unknown name, a space that the encoder does not support, or a class that is not an encoder.
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
    """Make a user's encoder, and refuse one that violates the contract."""
    assert isinstance(space, SINGLE)
    try:
        made = encoder(space)
        size = made.size
    except (TypeError, AttributeError) as error:
        raise InputError(
            f"encoder {name!r} cannot be constructed ({error}); its class must take the observation space and have an "
            "attribute size"
        ) from error
    observations = torch.as_tensor(np.stack([space.sample(), space.sample()]))
    with torch.no_grad():
        outputs = made(observations)
    if outputs.shape != (2, size) or outputs.dtype != torch.float32:
        given = f"{outputs.dtype} {list(outputs.shape)}".removeprefix("torch.")
        raise InputError(f"encoder {name!r} must map {list(observations.shape)} to float32 [2, {size}], not {given}")
    return ObservationEncoder(made, space)
