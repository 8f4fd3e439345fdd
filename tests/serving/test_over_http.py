from metarl.experiments.tools.over_http import Options, compare
from tests.serving.serving import Server


def test_returns_over_http_are_those_of_an_evaluation(server: Server, maml: str) -> None:
    rows = compare(Options(maml, steps=2), server.client)
    assert [remote for remote, _ in rows] == [local for _, local in rows]
    assert len(set(rows)) == 3
