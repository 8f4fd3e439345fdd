"""The file format of checkpoints: containers, numbers, strings and tensors, protected by a SHA-256, without code.

A file is the line ``metarl checkpoint 2``, a line with the SHA-256 of everything after it, the length of the JSON in 8
bytes (little endian), the JSON, and the tensors' bytes one after another. The JSON is the structure of the content, in
which a tensor is represented by its dtype, shape and offset.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

MAGIC = b"metarl checkpoint 2\n"
DIGEST = 64  # hexadecimal digits of a SHA-256
PLAIN = (type(None), bool, int, float, str)


def encode(content: Mapping[str, Any]) -> bytes:
    """Encode dictionaries, lists, tuples, tensors, numbers, strings and None as bytes.

    Raises:
        TypeError: if the content contains anything else.
    """
    blocks: list[bytes] = []
    structure = json.dumps(_describe(content, blocks)).encode()
    payload = b"".join([len(structure).to_bytes(8, "little"), structure, *blocks])
    return MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload


def decode(data: bytes) -> dict[str, Any]:
    """Decode the bytes of ``encode``, with tensors on the CPU.

    Raises:
        ValueError: if the bytes are not in the format of ``encode``, or are damaged.
    """
    start = len(MAGIC) + DIGEST + 1
    if not data.startswith(MAGIC):
        raise ValueError("it does not begin as a checkpoint of metarl")
    if hashlib.sha256(data[start:]).hexdigest().encode() + b"\n" != data[len(MAGIC) : start]:
        raise ValueError("its SHA-256 is not the one written in it")
    length = int.from_bytes(data[start : start + 8], "little")
    begin = start + 8
    content: dict[str, Any] = _build(json.loads(data[begin : begin + length]), memoryview(data)[begin + length :])
    return content


def leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested containers with their paths, such as ``learner/params/weight_0``."""
    if isinstance(content, Mapping):
        pairs = list(content.items())
    elif isinstance(content, list | tuple):
        pairs = list(enumerate(content))
    else:
        yield path, content
        return
    for key, value in pairs:
        yield from leaves(value, f"{path}/{key}" if path else str(key))


def find_not_finite(content: Any) -> str | None:
    """Return the path of the first number or tensor that is infinite or NaN, or None if all are finite."""
    for path, value in leaves(content):
        if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            return path
        if isinstance(value, float) and not math.isfinite(value):
            return path
    return None


def find_misfit(own: Any, loaded: Any, path: str = "") -> str | None:
    """Return where a loaded state lacks an entry of a learner's own state or has one of another type, or None.

    Entries that are empty in an untrained learner (an optimiser's moments, a replay buffer) are filled by training; for
    them only dtypes and the shapes of single records are compared.
    """
    if isinstance(own, Mapping):
        return _find_misfit_in(own, loaded, path)
    if isinstance(own, Tensor):
        return None if isinstance(loaded, Tensor) and _fits(own, loaded) else path
    if isinstance(own, list | tuple):
        if type(loaded) is not type(own) or (len(own) > 0 and len(loaded) != len(own)):
            return path
        return _find_misfit_in(dict(enumerate(own)), dict(enumerate(loaded)), path)
    if type(own) is not type(loaded):
        return path
    # Counters, such as the number of updates, start at 0 or above and only grow.
    counts = isinstance(own, int) and own >= 0 and loaded < 0
    return path if counts else None


def _find_misfit_in(own: Mapping[Any, Any], loaded: Any, path: str) -> str | None:
    if not isinstance(loaded, Mapping):
        return path
    if own and (others := sorted(map(str, own.keys() ^ loaded.keys()))):
        return f"{path}/{others[0]}"
    for key, value in own.items():
        if (found := find_misfit(value, loaded[key], f"{path}/{key}")) is not None:
            return found
    return None


def _fits(own: Tensor, loaded: Tensor) -> bool:
    if own.numel() == 0:
        return own.dtype == loaded.dtype and own.shape[1:] == loaded.shape[1:]
    return own.dtype == loaded.dtype and own.shape == loaded.shape


def _describe(value: Any, blocks: list[bytes]) -> Any:
    """Return the JSON representation of a value, and append the bytes of its tensors to ``blocks``."""
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        offset = sum(map(len, blocks))
        blocks.append(flat.view(torch.uint8).numpy().tobytes())
        return {"tensor": [str(value.dtype).removeprefix("torch."), list(value.shape), offset]}
    if isinstance(value, Mapping):
        # JSON keys must be strings; an optimiser's state has integer keys.
        return {"dict": [[key, _describe(inner, blocks)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_describe(inner, blocks) for inner in value]}
    if isinstance(value, PLAIN):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}: {value!r}")


def _build(node: Any, data: memoryview) -> Any:
    """Return the value that ``node`` represents; the inverse of ``_describe``."""
    if not isinstance(node, dict):
        return node
    ((kind, inner),) = node.items()
    if kind == "dict":
        return {key: _build(value, data) for key, value in inner}
    if kind == "list":
        return [_build(value, data) for value in inner]
    if kind == "tuple":
        return tuple(_build(value, data) for value in inner)
    name, shape, offset = inner
    dtype = getattr(torch, name)
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    block = bytearray(data[offset : offset + count * dtype.itemsize])
    return torch.frombuffer(block, dtype=dtype).reshape(shape)
