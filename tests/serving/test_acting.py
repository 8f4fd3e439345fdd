"""Acting for several tasks: in the event loop if a pass is short, otherwise in a thread."""

from typing import Any

import pytest

from metarl.serving import acting
from tests.serving.serving import lived, same, served
from tests.serving.test_rebuilding import make_env


@pytest.mark.parametrize("quick", [0.0, 60.0])
def test_an_error_ends_its_requests_and_the_next_ones_are_answered(
    quick: float, maml: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(acting, "QUICK", quick)
    with served(maml, url) as server:
        assert (server.service._acting._thread is None) is (quick > 1)
        whole, broken = (server.client.task(seed=1) for _ in range(2))
        expected = lived(whole, make_env(maml), 0)
        with monkeypatch.context() as patched:
            patched.setattr(acting, "act_together", fail)
            with pytest.raises(ZeroDivisionError):
                broken.act([0.0, 0.0])
        assert same(lived(broken, make_env(maml), 0), expected)
