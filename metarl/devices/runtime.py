"""Process-wide settings that affect speed on a CPU, with measurements in docs/performance.md."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Names and values of mallopt's parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let glibc's malloc keep large freed blocks for reuse, instead of returning them to the kernel.

    Activations of a rollout are blocks of megabytes that are freed and reallocated all the time. By default each block
    is mapped again and all of its pages fault, which costs more than the arithmetic. The setting affects the whole
    process, so training and the commands choose it, and other library functions do not. Without glibc it has no effect.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def share_of_cores() -> int:
    """Return how many of this machine's cores there are for each of its processes that a launcher started, at least 1.

    Launchers such as torchrun set LOCAL_WORLD_SIZE to their number.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _sharers())


def set_torch_threads(threads: int) -> None:
    """Let torch use this many threads; where processes share the cores, no more than this one's share."""
    torch.set_num_threads(min(threads, share_of_cores()) if _sharers() > 1 else threads)


def _sharers() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def single_torch_thread() -> Iterator[None]:
    """Run torch's CPU operations on one thread.

    While a simulator runs its own threads, the small operations between steps do not benefit from torch's worker
    threads, which keep spinning after each operation on the cores that the simulator needs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
