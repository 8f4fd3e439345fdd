"""One torch thread for every test: several times faster on small machines, and the same sums everywhere.

Runs and evaluations draw no curves, and runs validate on few tasks: that would take most of their time. Tests that look
at a curve ask for ``real_curves``.
"""

import gc
import io
import os
from collections.abc import Iterator

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, here and in child processes
os.environ["WANDB_X_SAVE_REQUIREMENTS"] = "false"  # or each run of W&B would read every installed package's metadata

# Fixtures import what they need, because the process that only distributes tests reads this file too.
DRAWING = ("metarl.training.loop", "metarl.experiments.commands.run_files")


def pytest_collection_finish() -> None:
    """Exempt what was imported from garbage collection, which would search it, and copy it in forked processes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # the default spends 4 % of the time on collections


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    # What a test writes need not survive a power cut, and a killed process loses nothing that it wrote.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _few_validation_tasks() -> Iterator[None]:
    from tests.runs import VALIDATION_TASKS

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metarl.training.loop.VALIDATION_TASKS", VALIDATION_TASKS)
        yield


@pytest.fixture(scope="session", autouse=True)
def _plain_curves() -> Iterator[None]:
    from PIL import Image

    png = io.BytesIO()
    Image.linear_gradient("L").save(png, "png")
    with pytest.MonkeyPatch.context() as patch:
        for module in DRAWING:
            patch.setattr(
                f"{module}.draw_adaptation_curve", lambda curve, path, title: path.write_bytes(png.getvalue())
            )
        yield


@pytest.fixture
def real_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training and evaluation draw their curves."""
    from metarl.evaluation.figures import draw_adaptation_curve

    for module in DRAWING:
        monkeypatch.setattr(f"{module}.draw_adaptation_curve", draw_adaptation_curve)
