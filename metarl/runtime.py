"""Process-wide settings that decide the speed on a CPU, each with its measured reason (docs/performance.md)."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Names and values of mallopt's parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let glibc's malloc keep large freed blocks for reuse, instead of returning them to the kernel.

    A rollout's activations are blocks of megabytes that are freed and allocated again at once. By default each of them
    is mapped anew and every page of it faults, which costs more than the arithmetic on it. It is a setting of the whole
    process, for a program to choose; other C libraries than glibc are left alone.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def single_torch_thread() -> Iterator[None]:
    """Run torch's CPU operations on one thread.

    While a simulator runs its own threads, the small operations between two steps gain nothing from torch's
    worker threads, and those spin for a while after each operation on the cores that the simulator needs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
