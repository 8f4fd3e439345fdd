"""Named tensors in NumPy's npz format, which contains no code, verified by SHA-256."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metarl.errors import InputError
from metarl.storage.files import write_whole


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write named tensors atomically, and return the file's SHA-256."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: value.detach().cpu().numpy() for name, value in tensors.items()})
    content = buffer.getvalue()
    write_whole(path, lambda part: part.write_bytes(content))
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a file of ``write_tensors``, on the CPU.

    Raises:
        InputError: if the file is missing, or has another SHA-256.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing; restore it from a copy") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{path} is damaged: its SHA-256 does not match the recorded one; restore it from a copy")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (ValueError, zipfile.BadZipFile):
        raise InputError(f"{path} is not an npz file of tensors") from None
