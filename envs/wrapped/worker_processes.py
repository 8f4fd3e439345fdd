"""Worker processes that neither hang a run nor outlive it."""

import os
import threading
import time
from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv

# A reset or step that takes longer is considered hung.
STEP_SECONDS = 600.0
PARENT_CHECK_SECONDS = 2.0


class TimedAsyncVectorEnv(AsyncVectorEnv[Any, Any]):
    """Gymnasium's asynchronous vector environment with a time limit for each reset and step.

    Raises:
        TimeoutError: (of ``multiprocessing``) from ``reset`` and ``step``, after ``STEP_SECONDS``.
    """

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset all worlds."""
        self.reset_async(seed=seed, options=options)
        return self.reset_wait(timeout=STEP_SECONDS)

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all worlds."""
        self.step_async(actions)
        return self.step_wait(timeout=STEP_SECONDS)


def exit_with(parent: int) -> None:
    """Exit this process soon after its parent has ended, even if an environment hangs.

    A killed parent closes its end of the pipes, but forked siblings hold copies of it, so no end of file arrives.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
