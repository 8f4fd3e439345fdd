"""C++ of this package, compiled on the user's machine when it is first needed, where there is a compiler.

Nothing needs it: whatever is compiled has an equivalent in torch, up to rounding. Libraries are kept in the user's
cache and are found again by what they were made from, so compiling, which takes about a second, happens once per
machine.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch

# Options of the compiler for the instructions that torch itself uses on a machine.
INSTRUCTIONS = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}
OPTIONS = ("-std=c++17", "-O3", "-shared", "-fPIC")
# What every source may include.
HEADER = Path(__file__).with_name("vectors.h")
SWITCH = "METARL_COMPILE"
Part = TypeVar("Part")


def instructions() -> str | None:
    """Return the vector instructions to compile for; None where nothing is compiled.

    That is on machines without AVX2, without a compiler (the one that CXX names, or c++), or if METARL_COMPILE is 0.
    """
    found = torch.backends.cpu.get_cpu_capability()
    wanted = os.environ.get(SWITCH) != "0" and shutil.which(_program()) is not None
    return found if wanted and found in INSTRUCTIONS else None


@cache
def library(source: Path) -> ctypes.CDLL | None:
    """Return the library compiled from a C++ file; None where nothing is compiled, or, with a warning, if it fails."""
    known = instructions()
    if known is None:
        return None
    command = [_program(), *OPTIONS, *INSTRUCTIONS[known]]
    made_of = "\0".join([*command, HEADER.read_text(), source.read_text()])
    name = f"{source.stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    with tempfile.TemporaryDirectory() as elsewhere:  # once loaded, the file is no longer needed
        folder = _cache() or Path(elsewhere)
        if not (folder / name).exists() and not _compile(command, source, folder / name):
            return None
        return ctypes.CDLL(str(folder / name))


def in_threads(work: Callable[[int, int], Part], count: int) -> list[Part]:
    """Call ``work(first, last)`` for as many equal parts of ``range(count)`` as torch has threads, side by side.

    Returns:
        What was returned for each part, in their order.
    """
    threads = max(1, min(torch.get_num_threads(), count))
    if threads == 1:
        return [work(0, count)]
    bounds = [count * number // threads for number in range(threads + 1)]
    own, *others = pairwise(bounds)
    working = [_pool(len(others), os.getpid()).submit(work, *each) for each in others]
    try:
        return [work(*own), *(each.result() for each in working)]
    finally:  # whatever interrupts this thread, the others are still using the caller's memory
        wait(working)


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return waiting threads; a process that was forked has its own, because threads are not forked with it."""
    return ThreadPoolExecutor(threads)


def _program() -> str:
    return os.environ.get("CXX") or "c++"


def _cache() -> Path | None:
    """Return the folder of the user's libraries; None where it cannot be written to."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "metarl"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _compile(command: list[str], source: Path, target: Path) -> bool:
    """Compile a file; return whether it succeeded. Other processes see the library complete or not at all."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        command = [*command, f"-I{HEADER.parent}", str(source), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = next(iter(done.stderr.splitlines()), f"exit code {done.returncode}")
            warnings.warn(
                f"{command[0]} could not compile {source.name} ({reason}): loops in torch are used, which are slower; "
                f"set {SWITCH}=0 to use them without this warning",
                stacklevel=3,
            )
            return False
        made.replace(target)
    return True
