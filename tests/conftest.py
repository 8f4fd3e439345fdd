"""One torch thread for every test: several times faster on small machines, and the same sums everywhere."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training and evaluation draw no curves, for tests that do not look at them."""
    for module in ("metarl.training_loop", "metarl.experiments.commands.run_files"):
        monkeypatch.setattr(f"{module}.draw_adaptation_curve", lambda *given: None)
