"""The device that a user names."""

import torch

from metarl.errors import InputError


def resolve_device(name: str) -> torch.device:
    """Return the torch device of that name.

    Raises:
        InputError: if there is no such device on this machine.
    """
    try:
        device = torch.device(name)
        known = device.type in ("cpu", "cuda")
    except RuntimeError:
        known = False
    if not known:
        raise InputError(f"unknown device {name!r}; use cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"there is no CUDA device {name!r} on this machine; use cpu")
    return device
